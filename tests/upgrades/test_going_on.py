"""Today's code finishes what an installation of 7a09abe had begun: jobs, rounds and projects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.upgrades.conftest import Installation, Row

pytestmark = pytest.mark.slow

TRAINING = {"train_steps": 2, "batch_size": 1, "rank": 1, "resolution": 32, "prior_images": 0}
DRAWING = {"inference_steps": 2, "width": 32, "height": 32}
QUICK = {"train": TRAINING, "generate": DRAWING}

# The states of each project and its rounds when every open job has been done and nobody has curated anything.
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
# The same for the failed projects after a retry.
RETRIED = {
    "failed in training": ("running", ["curating", "pending"]),
    "failed in generating": ("running", ["curating", "pending"]),
    "failed in curating": ("completed", ["completed", "completed"]),
    "failed in evaluating": ("completed", ["completed"]),
}


@pytest.fixture(scope="module")
def put_back(installation: Installation) -> dict[str, Any]:
    """The jobs that were running, after the reaper has put them back."""
    running = [row for row in installation.old["jobs"] if row["state"] == "running"]
    assert installation.reap() == len(running)
    return {row["id"]: job(installation, row) for row in running}


@pytest.fixture(scope="module")
def gone_on(installation: Installation, put_back: dict[str, Any]) -> Installation:
    """The old installation after every open job, and every job that follows, has been done."""
    installation.work_off()
    return installation


def job(installation: Installation, row: Row) -> Any:
    return installation.get(f"/jobs/{row['id']}", caller=installation.caller(row["user_id"]))


def pictures(installation: Installation, row: Row) -> list[Any]:
    return installation.all(f"/jobs/{row['id']}/images", caller=installation.caller(row["user_id"]))


def standing(installation: Installation, name: str) -> tuple[str, list[str]]:
    project = installation.named(name)
    return project["state"], [round_["state"] for round_ in installation.rounds(project)]


def open_jobs(installation: Installation, *kinds: str) -> list[Row]:
    """The jobs that were queued or running, without those that somebody had cancelled."""
    found = [row for row in installation.old["jobs"] if row["state"] in ("queued", "running")]
    return [row for row in found if (row["kind"] in kinds or not kinds) and not row["cancel_requested_at"]]


def test_the_fixture_has_every_kind_of_job_in_every_state_that_matters(installation: Installation) -> None:
    kinds = {"upload", "crop", "score", "train", "generate"}
    for state in ("queued", "running", "succeeded", "failed"):
        assert {row["kind"] for row in installation.old["jobs"] if row["state"] == state} == kinds
    assert {row["state"] for row in installation.old["projects"]} == {
        *("draft", "running", "completed", "failed", "cancelled")
    }
    states = {(row["kind"], row["state"]) for row in installation.old["rounds"]}
    both = ("pending", "training", "completed", "failed", "cancelled")
    assert states == {
        *(("style", state) for state in (*both, "generating", "curating")),
        *(("character", state) for state in (*both, "evaluating")),
    }


def test_every_running_job_is_put_back_and_one_that_was_cancelled_ends(
    installation: Installation, put_back: dict[str, Any]
) -> None:
    for row in installation.old["jobs"]:
        if row["state"] == "running":
            cancelled = row["cancel_requested_at"] is not None
            expected = ("cancelled", row["attempt"]) if cancelled else ("queued", row["attempt"] + 1)
            assert (put_back[row["id"]]["state"], put_back[row["id"]]["attempt"]) == expected


def test_every_open_job_succeeds(gone_on: Installation) -> None:
    for row in open_jobs(gone_on):
        now = job(gone_on, row)
        assert now["state"] == "succeeded", (row["kind"], now["error"])
        assert now["attempt"] == row["attempt"] + (row["state"] == "running")


def test_every_project_has_moved_on_as_far_as_its_jobs_lead(gone_on: Installation) -> None:
    for name, expected in STANDING.items():
        assert standing(gone_on, name) == expected, name


def test_a_training_leaves_a_lora_with_the_parameters_that_were_planned(gone_on: Installation) -> None:
    rows = open_jobs(gone_on, "train")
    for row in rows:
        (lora,) = (lora for lora in gone_on.all(f"/projects/{row['project_id']}/loras") if lora["job_id"] == row["id"])
        planned = {name: row["params"][name] for name in ("rank", "alpha", "train_steps")}
        assert {name: lora[name] for name in planned} == planned
        assert lora["metrics"]["images"] == len(row["inputs"]["dataset"])
    assert {row["params"]["rank"] for row in rows} == {1, 3}


def test_a_job_that_draws_leaves_the_pictures_that_were_asked_for(gone_on: Installation) -> None:
    for row in open_jobs(gone_on, "generate"):
        drawn = pictures(gone_on, row)
        asked = ("prompt", "seed", "view", "framing")
        assert [{name: each[name] for name in asked} for each in drawn] == row["inputs"]["pictures"]
        size = {(row["params"]["width"], row["params"]["height"])}
        assert {(each["width"], each["height"]) for each in drawn} == size


def test_pictures_that_were_drawn_before_are_not_drawn_again(gone_on: Installation) -> None:
    begun = [row for row in open_jobs(gone_on, "generate") if row["state"] == "running"]
    for row in begun:
        kept = row["checkpoint"]["images"]
        assert 0 < len(kept) < len(row["inputs"]["pictures"])
        drawn = pictures(gone_on, row)
        for index, picture in kept.items():
            assert drawn[int(index)]["sha256"] == picture["sha256"]
            assert drawn[int(index)]["url"].endswith(picture["key"])
    assert begun


def test_open_uploads_and_crops_become_references(gone_on: Installation) -> None:
    for row in open_jobs(gone_on, "upload"):
        (image,) = pictures(gone_on, row)
        assert (image["view"], image["framing"], "smile" in image["tags"]) == ("side", "portrait", True)
    for row in open_jobs(gone_on, "crop"):
        crops = pictures(gone_on, row)
        assert {(image["role"], image["source"]) for image in crops} == {("reference", "crop")}


def test_open_score_jobs_decide_about_every_candidate(gone_on: Installation) -> None:
    for row in open_jobs(gone_on, "score"):
        for candidate in row["inputs"]["candidates"]:
            image = gone_on.get(f"/images/{candidate['id']}")
            assert image["decision"] in ("accepted", "rejected")
            assert image["scores"]["identity"] is not None


@pytest.mark.parametrize("name", RETRIED)
def test_a_failed_project_is_retried(gone_on: Installation, name: str) -> None:
    project = gone_on.done("POST", f"/projects/{gone_on.named(name)['id']}/retry")
    assert (project["state"], project["error"]) == ("running", None)
    gone_on.work_off()
    assert standing(gone_on, name) == RETRIED[name]


@pytest.mark.parametrize("name", ["curates", "needs a person"])
def test_a_curation_is_finished_and_the_character_round_follows(gone_on: Installation, name: str) -> None:
    path = f"/projects/{gone_on.named(name)['id']}/rounds/1"
    before = gone_on.get(path)
    reserve = before["decisions"]["pending"] or before["decisions"]["rejected"][:1]
    decided = gone_on.done("PUT", f"{path}/decisions", {"accepted": reserve[:1], "rejected": reserve[1:]})
    assert reserve[0] in decided["decisions"]["accepted"]
    assert gone_on.done("POST", f"{path}/finish", {"accept_fewer": True})["state"] == "completed"
    gone_on.work_off()
    assert standing(gone_on, name) == ("completed", ["completed", "completed"])
    character = gone_on.rounds(gone_on.named(name))[1]
    assert reserve[0] in [entry["image_id"] for entry in character["dataset"]]


def test_more_candidates_are_drawn_by_an_old_lora(gone_on: Installation) -> None:
    path = f"/projects/{gone_on.named('draws')['id']}/rounds/1"
    asked = gone_on.done("POST", f"{path}/candidates", {"count": 1, "views": ["behind"]})
    gone_on.work_off()
    assert gone_on.get(f"/jobs/{asked['id']}")["state"] == "succeeded"
    assert len(gone_on.all(f"{path}/candidates")) == 3


def test_a_round_with_every_parameter_goes_on_with_them(gone_on: Installation) -> None:
    project = gone_on.named("message to train with every parameter")
    path = f"/projects/{project['id']}/rounds/1"
    plan = project["plan"]["rounds"][0]
    candidates = gone_on.all(f"{path}/candidates")
    assert {image["view"] for image in candidates} <= set(plan["views"])
    assert all("sketch, grey background" in image["prompt"] for image in candidates)
    first = [image["id"] for image in candidates[:1]]
    gone_on.done("PUT", f"{path}/decisions", {"accepted": first})
    gone_on.done("POST", f"{path}/finish")
    gone_on.work_off()
    assert standing(gone_on, project["name"]) == ("running", ["completed", "curating", "pending"])
    assert [lora["rank"] for lora in gone_on.all(f"/projects/{project['id']}/loras")] == [3, 3]


def test_a_draft_is_changed_and_started(gone_on: Installation) -> None:
    project = gone_on.named("draft")
    plan = {"rounds": [{"kind": "character", **QUICK}]}
    changed = gone_on.done("PATCH", f"/projects/{project['id']}", {"plan": plan, "feature_tags": ["fox tail"]})
    assert changed["plan"]["rounds"][0]["train"]["train_steps"] == 2
    gone_on.done("POST", f"/projects/{project['id']}/start")
    gone_on.work_off()
    assert standing(gone_on, "draft") == ("completed", ["completed"])


def test_a_completed_project_is_reopened_with_another_round(gone_on: Installation) -> None:
    project = gone_on.named("completed")
    added = gone_on.done("POST", f"/projects/{project['id']}/rounds", {"kind": "character", **QUICK})
    assert (added["number"], added["state"]) == (3, "training")
    gone_on.work_off()
    assert standing(gone_on, "completed") == ("completed", ["completed"] * 3)


def test_old_loras_draw_together(gone_on: Installation) -> None:
    project = gone_on.named("completed")
    loras = [lora["id"] for lora in gone_on.all(f"/projects/{project['id']}/loras")][:2]
    body = {
        "pictures": [{"prompt": "eiei21girl, from side"}],
        "loras": [{"lora_id": each, "weight": 0.5} for each in loras],
        "params": DRAWING,
    }
    asked = gone_on.done("POST", f"/projects/{project['id']}/generations", body)
    gone_on.work_off()
    assert gone_on.get(f"/jobs/{asked['id']}")["state"] == "succeeded"


def test_a_cancelled_project_is_deleted(gone_on: Installation) -> None:
    project = gone_on.named("cancelled while it trains")
    assert gone_on.ask("DELETE", f"/projects/{project['id']}").status_code == 204
    assert gone_on.ask("GET", f"/projects/{project['id']}").status_code == 404
