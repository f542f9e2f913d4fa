"""The dashboard and the alerts query only metrics that exist."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from embedded.stack import ROOT
from shared.queue import jobs
from tests.factories import make_job, make_project

FOLDER = ROOT / "docker" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS: list[dict[str, Any]] = [
    alert for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for alert in group["rules"]
]
ASKED = {
    **{
        f"{panel['title']}: {each['refId']}": each["expr"] for panel in DASHBOARD["panels"] for each in panel["targets"]
    },
    **{alert["alert"]: alert["expr"] for alert in ALERTS},
}


@pytest.fixture
def exposed(app, ada, session_of) -> dict[str, set[str]]:
    """The labels of every metric of a service in which something happens, by the metric's name."""
    with session_of() as session:
        project = make_project(session, ada.user_id)
        make_job(session, project)
        done = make_job(session, project, state="succeeded")
        done.started_at = done.finished_at = done.created_at
        for queue, slots in (("gpu", 1), ("cpu", 1), ("io", 0)):
            jobs.check_in(session, f"{queue}@one", queue, slots)
    ada.get("/v1/projects")
    families = text_string_to_metric_families(app.test_client().get("/metrics").text)
    samples = chain.from_iterable(family.samples for family in families)
    return {sample.name: set(sample.labels) for sample in samples}


@pytest.mark.parametrize("title", ASKED)
def test_every_queried_metric_exists(title, exposed):
    query = ASKED[title]
    names = re.findall(r"bootlora_\w+", query)
    assert names or "up{" in query
    assert set(names) <= set(exposed)
    for name, labels in re.findall(r"(bootlora_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= exposed[name], name
    for labels in re.findall(r"by \(([^)]*)\)", query):
        assert set(re.findall(r"\w+", labels)) <= exposed[names[0]], names[0]


def test_each_alert_has_a_description():
    for alert in ALERTS:
        assert alert["annotations"]["summary"], alert
        assert alert["labels"]["severity"] in ("page", "warn")
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])):
            assert f"by ({label})" in alert["expr"], alert["alert"]


def test_the_parts_find_each_other():
    (source,) = yaml.safe_load((FOLDER / "datasource.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = {mount.split(":")[1] for name in ("prometheus", "grafana") for mount in services[name]["volumes"]}
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (provider,) = yaml.safe_load((FOLDER / "dashboards.yml").read_text())["providers"]
    assert {*prometheus["rule_files"], f"{provider['options']['path']}/bootlora.json"} <= mounted
    (target,) = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in services


def test_no_panels_overlap():
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
