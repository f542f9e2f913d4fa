"""The work that 7a09abe has left behind goes on: its queue, its lost jobs, its rounds and its projects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.upgrades.conftest import DATABASES, Installation, Row, taken_over

pytestmark = pytest.mark.slow

TRAINING = {"train_steps": 2, "batch_size": 1, "rank": 1, "resolution": 32, "prior_images": 0}
DRAWING = {"inference_steps": 2, "width": 32, "height": 32}
QUICK = {"train": TRAINING, "generate": DRAWING}

# Where each project stands when all that waited and ran has been done, and nobody has decided about anything.
STANDING = {
    "trains": ("running", ["curating", "pending"]),
    "trains, again": ("running", ["curating", "pending"]),
    "draws": ("running", ["curating", "pending"]),
    "scores": ("completed", ["completed", "completed"]),
    "trains a character": ("completed", ["completed"]),
    "evaluates": ("completed", ["completed"]),
    "cancelled while it trains": ("cancelled", ["cancelled", "cancelled"]),
    "message to score": ("completed", ["completed", "completed"]),
    "message to draw": ("running", ["curating", "pending"]),
    "message to train with every parameter": ("running", ["curating", "pending", "pending"]),
    "waits to train a character": ("completed", ["completed"]),
}
# The same after a retry of those that had failed.
RETRIED = {
    "failed in training": ("running", ["curating", "pending"]),
    "failed in generating": ("running", ["curating", "pending"]),
    "failed in curating": ("completed", ["completed", "completed"]),
    "failed in evaluating": ("completed", ["completed"]),
}


@pytest.fixture(scope="module", params=DATABASES)
def untouched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    yield from taken_over(tmp_path_factory.mktemp("installation"), server)


@pytest.fixture(scope="module")
def put_back(untouched: Installation) -> dict[str, Any]:
    """The jobs that ran, as they are once the clock has noticed that their workers are gone."""
    running = [row for row in untouched.old["jobs"] if row["state"] == "running"]
    assert untouched.reap() == len(running)
    return {row["id"]: job(untouched, row) for row in running}


@pytest.fixture(scope="module")
def installation(untouched: Installation, put_back: dict[str, Any]) -> Installation:
    """The old installation when all that waited has been done, and all that followed."""
    untouched.work_off()
    return untouched


def job(installation: Installation, row: Row) -> Any:
    return installation.get(f"/jobs/{row['id']}", caller=installation.caller(row["user_id"]))


def pictures(installation: Installation, row: Row) -> list[Any]:
    return installation.all(f"/jobs/{row['id']}/images", caller=installation.caller(row["user_id"]))


def standing(installation: Installation, name: str) -> tuple[str, list[str]]:
    project = installation.named(name)
    return project["state"], [round_["state"] for round_ in installation.rounds(project)]


def open_jobs(installation: Installation, *kinds: str) -> list[Row]:
    """The jobs that waited or ran, of some kinds or all; not one that was to be cancelled."""
    found = [row for row in installation.old["jobs"] if row["state"] in ("queued", "running")]
    return [row for row in found if (row["kind"] in kinds or not kinds) and not row["cancel_requested_at"]]


def test_the_fixture_has_every_kind_of_job_in_every_state_that_matters(untouched: Installation) -> None:
    kinds = {"upload", "crop", "score", "train", "generate"}
    for state in ("queued", "running", "succeeded", "failed"):
        assert {row["kind"] for row in untouched.old["jobs"] if row["state"] == state} == kinds
    assert {row["state"] for row in untouched.old["projects"]} == {
        *("draft", "running", "completed", "failed", "cancelled")
    }
    states = {(row["kind"], row["state"]) for row in untouched.old["rounds"]}
    both = ("pending", "training", "completed", "failed", "cancelled")
    assert states == {
        *(("style", state) for state in (*both, "generating", "curating")),
        *(("character", state) for state in (*both, "evaluating")),
    }


def test_every_running_job_is_put_back_and_one_that_was_cancelled_ends(
    untouched: Installation, put_back: dict[str, Any]
) -> None:
    for row in untouched.old["jobs"]:
        if row["state"] == "running":
            cancelled = row["cancel_requested_at"] is not None
            expected = ("cancelled", row["attempt"]) if cancelled else ("queued", row["attempt"] + 1)
            assert (put_back[row["id"]]["state"], put_back[row["id"]]["attempt"]) == expected


def test_every_job_that_waited_or_ran_succeeds(installation: Installation) -> None:
    for row in open_jobs(installation):
        now = job(installation, row)
        assert now["state"] == "succeeded", (row["kind"], now["error"])
        assert now["attempt"] == row["attempt"] + (row["state"] == "running")


def test_every_project_stands_where_its_work_has_brought_it(installation: Installation) -> None:
    for name, expected in STANDING.items():
        assert standing(installation, name) == expected, name


def test_a_training_leaves_a_lora_with_the_parameters_that_were_planned(installation: Installation) -> None:
    rows = open_jobs(installation, "train")
    for row in rows:
        (lora,) = (
            lora for lora in installation.all(f"/projects/{row['project_id']}/loras") if lora["job_id"] == row["id"]
        )
        planned = {name: row["params"][name] for name in ("rank", "alpha", "train_steps")}
        assert {name: lora[name] for name in planned} == planned
        assert lora["metrics"]["images"] == len(row["inputs"]["dataset"])
    assert {row["params"]["rank"] for row in rows} == {1, 3}


def test_a_job_that_draws_leaves_the_pictures_that_were_asked_for(installation: Installation) -> None:
    for row in open_jobs(installation, "generate"):
        drawn = pictures(installation, row)
        asked = ("prompt", "seed", "view", "framing")
        assert [{name: each[name] for name in asked} for each in drawn] == row["inputs"]["pictures"]
        size = {(row["params"]["width"], row["params"]["height"])}
        assert {(each["width"], each["height"]) for each in drawn} == size


def test_pictures_that_were_drawn_before_are_not_drawn_again(installation: Installation) -> None:
    begun = [row for row in open_jobs(installation, "generate") if row["state"] == "running"]
    for row in begun:
        kept = row["checkpoint"]["images"]
        assert 0 < len(kept) < len(row["inputs"]["pictures"])
        drawn = pictures(installation, row)
        for index, picture in kept.items():
            assert drawn[int(index)]["sha256"] == picture["sha256"]
            assert drawn[int(index)]["url"].endswith(picture["key"])
    assert begun


def test_what_was_uploaded_and_cropped_becomes_references(installation: Installation) -> None:
    for row in open_jobs(installation, "upload"):
        (image,) = pictures(installation, row)
        assert (image["view"], image["framing"], "smile" in image["tags"]) == ("side", "portrait", True)
    for row in open_jobs(installation, "crop"):
        crops = pictures(installation, row)
        assert {(image["role"], image["source"]) for image in crops} == {("reference", "crop")}


def test_what_waited_for_the_scorer_is_scored(installation: Installation) -> None:
    for row in open_jobs(installation, "score"):
        for candidate in row["inputs"]["candidates"]:
            image = installation.get(f"/images/{candidate['id']}")
            assert image["decision"] in ("accepted", "rejected")
            assert image["scores"]["identity"] is not None


@pytest.mark.parametrize("name", RETRIED)
def test_a_failed_project_is_retried(installation: Installation, name: str) -> None:
    project = installation.done("POST", f"/projects/{installation.named(name)['id']}/retry")
    assert (project["state"], project["error"]) == ("running", None)
    installation.work_off()
    assert standing(installation, name) == RETRIED[name]


@pytest.mark.parametrize("name", ["curates", "needs a person"])
def test_a_curation_is_finished_and_the_character_round_follows(installation: Installation, name: str) -> None:
    path = f"/projects/{installation.named(name)['id']}/rounds/1"
    before = installation.get(path)
    reserve = before["decisions"]["pending"] or before["decisions"]["rejected"][:1]
    decided = installation.done("PUT", f"{path}/decisions", {"accepted": reserve[:1], "rejected": reserve[1:]})
    assert reserve[0] in decided["decisions"]["accepted"]
    assert installation.done("POST", f"{path}/finish", {"accept_fewer": True})["state"] == "completed"
    installation.work_off()
    assert standing(installation, name) == ("completed", ["completed", "completed"])
    character = installation.rounds(installation.named(name))[1]
    assert reserve[0] in [entry["image_id"] for entry in character["dataset"]]


def test_more_candidates_are_drawn_by_an_old_lora(installation: Installation) -> None:
    path = f"/projects/{installation.named('draws')['id']}/rounds/1"
    asked = installation.done("POST", f"{path}/candidates", {"count": 1, "views": ["behind"]})
    installation.work_off()
    assert installation.get(f"/jobs/{asked['id']}")["state"] == "succeeded"
    assert len(installation.all(f"{path}/candidates")) == 3


def test_a_round_with_every_parameter_goes_on_with_them(installation: Installation) -> None:
    project = installation.named("message to train with every parameter")
    path = f"/projects/{project['id']}/rounds/1"
    plan = project["plan"]["rounds"][0]
    candidates = installation.all(f"{path}/candidates")
    assert {image["view"] for image in candidates} <= set(plan["views"])
    assert all("sketch, grey background" in image["prompt"] for image in candidates)
    first = [image["id"] for image in candidates[:1]]
    installation.done("PUT", f"{path}/decisions", {"accepted": first})
    installation.done("POST", f"{path}/finish")
    installation.work_off()
    assert standing(installation, project["name"]) == ("running", ["completed", "curating", "pending"])
    assert [lora["rank"] for lora in installation.all(f"/projects/{project['id']}/loras")] == [3, 3]


def test_a_draft_is_changed_and_started(installation: Installation) -> None:
    project = installation.named("draft")
    plan = {"rounds": [{"kind": "character", **QUICK}]}
    changed = installation.done("PATCH", f"/projects/{project['id']}", {"plan": plan, "feature_tags": ["fox tail"]})
    assert changed["plan"]["rounds"][0]["train"]["train_steps"] == 2
    installation.done("POST", f"/projects/{project['id']}/start")
    installation.work_off()
    assert standing(installation, "draft") == ("completed", ["completed"])


def test_another_base_model_leaves_the_default_plan_of_a_draft_as_it_is(installation: Installation) -> None:
    made = installation.done("POST", "/projects", {"name": "new", "trigger_word": "eiei21girl"})
    old = installation.named("cancelled before it trains")
    assert made["plan"] == old["plan"]


def test_a_completed_project_is_reopened_with_another_round(installation: Installation) -> None:
    project = installation.named("completed")
    added = installation.done("POST", f"/projects/{project['id']}/rounds", {"kind": "character", **QUICK})
    assert (added["number"], added["state"]) == (3, "training")
    installation.work_off()
    assert standing(installation, "completed") == ("completed", ["completed"] * 3)


def test_old_loras_draw_together(installation: Installation) -> None:
    project = installation.named("completed")
    loras = [lora["id"] for lora in installation.all(f"/projects/{project['id']}/loras")][:2]
    body = {
        "pictures": [{"prompt": "eiei21girl, from side"}],
        "loras": [{"lora_id": each, "weight": 0.5} for each in loras],
        "params": DRAWING,
    }
    asked = installation.done("POST", f"/projects/{project['id']}/generations", body)
    installation.work_off()
    assert installation.get(f"/jobs/{asked['id']}")["state"] == "succeeded"


def test_a_cancelled_project_is_deleted(installation: Installation) -> None:
    project = installation.named("cancelled while it trains")
    assert installation.ask("DELETE", f"/projects/{project['id']}").status_code == 204
    assert installation.ask("GET", f"/projects/{project['id']}").status_code == 404
