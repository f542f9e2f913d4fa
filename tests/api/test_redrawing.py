"""Pictures drawn from others: what a request may say, and what the job is told."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image as Pixels

from shared.catalog import kinds
from shared.catalog.params import GenerateParams
from shared.models import Job
from tests.api.problems import problem
from tests.factories import make_image, make_project, png


def mask(width: int = 64, height: int = 64, mode: str = "L", **save: Any) -> bytes:
    """Its left half is white."""
    picture = Pixels.new(mode, (width, height), "black")
    picture.paste("white", (0, 0, width // 2, height))
    target = io.BytesIO()
    picture.save(target, save.pop("format", "PNG"), **save)
    return target.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture
def project(ada: Any, session_of: Any) -> Any:
    with session_of() as session:
        return make_project(session, ada.user_id)


@pytest.fixture
def image(project: Any, session_of: Any) -> Any:
    with session_of() as session:
        return make_image(session, project)


def body(image: Any, /, **more: Any) -> dict[str, Any]:
    return {"pictures": [{"prompt": "eiei21girl", "seed": 7, "image": image.id} | more]}


def told(session_of: Any, answer: Any) -> Any:
    """What the job of an answer has as inputs."""
    assert answer.status_code == 202, answer.json
    with session_of() as session:
        return kinds.GENERATE.inputs_of(session.get_one(Job, answer.json["id"]))


def stored_masks(runtime: Any) -> list[str]:
    return [found.key for found in runtime.storage.list("incoming/")]


def test_a_picture_is_drawn_from_another(ada: Any, project: Any, image: Any, session_of: Any) -> None:
    path = f"/v1/projects/{project.id}/generations"
    inputs = told(session_of, ada.post(path, body(image, strength=0.4, count=2)))
    assert [picture.seed for picture in inputs.pictures] == [7, 8]
    original = inputs.pictures[0].original
    assert original == inputs.pictures[1].original
    assert (original.image_id, original.image.key, original.image.sha256) == (image.id, image.key, image.sha256)
    assert (original.strength, original.width, original.height, original.mask) == (0.4, 64, 64, None)
    assert told(session_of, ada.post(path, body(image))).pictures[0].original.strength == 0.6


@pytest.mark.parametrize("form", ["base64", "data URL", "one bit", "JPEG"])
def test_a_mask_comes_in_the_request(
    ada: Any, project: Any, image: Any, session_of: Any, runtime: Any, form: str
) -> None:
    sent = {
        "base64": text(mask()),
        "data URL": "data:image/png;base64," + text(mask(mode="RGBA")),  # as a canvas of a browser gives it
        "one bit": text(mask(mode="1")),
        "JPEG": text(mask(format="JPEG", quality=95)),
    }[form]
    inputs = told(session_of, ada.post(f"/v1/projects/{project.id}/generations", body(image, mask=sent, count=2)))
    kept = inputs.pictures[0].original.mask
    assert inputs.pictures[1].original.mask == kept
    assert stored_masks(runtime) == [kept.key]
    stored = Pixels.open(io.BytesIO(b"".join(runtime.storage.open(kept.key))))
    assert (stored.mode, stored.size) == ("L", (64, 64))
    assert (stored.getpixel((2, 30)), stored.getpixel((60, 30))) == (255, 0)


@pytest.mark.parametrize(
    ("given", "code", "pointer"),
    [
        ({"strength": 0}, "invalid", "strength"),
        ({"strength": 1.01}, "invalid", "strength"),
        ({"strength": "0.5"}, "invalid", "strength"),
        ({"strength": 0.5, "image": None}, "image_left_out", "strength"),
        ({"mask": text(mask()), "image": None}, "image_left_out", "mask"),
        ({"mask": "?"}, "invalid", "mask"),
        ({"mask": ""}, "invalid", "mask"),
        ({"mask": "data:image/png,abc"}, "invalid", "mask"),
        ({"mask": text(b"no picture")}, "not_a_picture", "mask"),
        ({"mask": text(mask(32, 64))}, "mask_size", "mask"),
        ({"mask": text(png())}, "mask_not_grey", "mask"),
        ({"mask": text(png(mode="RGBA", color=(255, 255, 255, 0)))}, "mask_not_grey", "mask"),
        ({"mask": text(png(mode="L", color=0))}, "mask_is_black", "mask"),
        ({"mask": text(png(mode="L", color=255))}, "mask_is_white", "mask"),
        ({"image": "img_1"}, "invalid", "image"),
    ],
)
def test_what_is_wrong_is_pointed_at(
    ada: Any, project: Any, image: Any, runtime: Any, given: dict[str, Any], code: str, pointer: str
) -> None:
    path = f"/v1/projects/{project.id}/generations"
    for each in (path, f"{path}?dry_run=true"):
        refused = problem(ada.post(each, body(image, **given)), 422, code)
        assert refused["errors"][0]["pointer"] == f"/pictures/0/{pointer}"
    assert ada.get("/v1/jobs").json["items"] == []
    assert stored_masks(runtime) == []


def test_the_sizes_of_mask_and_image_are_both_named(ada: Any, project: Any, image: Any) -> None:
    refused = ada.post(f"/v1/projects/{project.id}/generations", body(image, mask=text(mask(32, 64))))
    assert "32 x 64" in refused.json["detail"]
    assert "64 x 64" in refused.json["detail"]


def test_a_request_has_few_masks(ada: Any, project: Any, image: Any, runtime: Any) -> None:
    wanted = [body(image, mask=text(mask(64, 64 + n)))["pictures"][0] for n in range(9)]
    problem(ada.post(f"/v1/projects/{project.id}/generations", {"pictures": wanted}), 422, "too_many_masks")
    assert stored_masks(runtime) == []


def test_the_image_is_one_of_the_project(ada: Any, bob: Any, project: Any, session_of: Any, runtime: Any) -> None:
    with session_of() as session:
        theirs = make_image(session, make_project(session, bob.user_id))
        elsewhere = make_image(session, make_project(session, ada.user_id))
        lost = make_image(session, project, state="missing")
    path = f"/v1/projects/{project.id}/generations"
    for wanted, status, code in (
        (theirs, 404, "not_found"),
        (elsewhere, 422, "image_of_another_project"),
        (lost, 409, "picture_missing"),
    ):
        answer = problem(ada.post(path, body(wanted, mask=text(mask()))), status, code)
        assert wanted.id in answer["detail"]
    problem(bob.post(path, body(theirs, mask=text(mask()))), 404, "not_found")
    assert stored_masks(runtime) == []


@pytest.mark.parametrize(
    ("own", "params", "drawn"),
    [
        ((128, 192), {}, (128, 192)),
        ((125, 195), {}, (128, 192)),  # multiples of 8
        ((20, 40), {}, (32, 40)),  # 32 is the least
        ((1024, 2048), {}, (360, 728)),  # 16 squares of 128 are the most
        ((513, 511), {}, (512, 512)),
        ((4000, 500), {}, (1448, 176)),
        ((1024, 2048), {"width": 128}, (128, 256)),
        ((1024, 2048), {"height": 128}, (64, 128)),
        ((1024, 2048), {"width": 128, "height": 128}, (128, 128)),
    ],
)
def test_it_is_drawn_at_its_own_size_or_as_near_as_can_be(
    ada: Any, project: Any, session_of: Any, own: tuple[int, int], params: Any, drawn: tuple[int, int]
) -> None:
    with session_of() as session:
        image = make_image(session, project, width=own[0], height=own[1])
    answer = ada.post(f"/v1/projects/{project.id}/generations", body(image) | {"params": params})
    original = told(session_of, answer).pictures[0].original
    assert (original.width, original.height) == drawn


def test_a_side_that_makes_it_too_large_is_refused(ada: Any, project: Any, session_of: Any) -> None:
    with session_of() as session:
        image = make_image(session, project, width=100, height=400)
    path = f"/v1/projects/{project.id}/generations"
    problem(ada.post(path, body(image) | {"params": {"width": 512}}), 422, "size_too_large")


def test_large_pictures_are_drawn_few_at_once(ada: Any, project: Any, session_of: Any) -> None:
    with session_of() as session:
        image = make_image(session, project, width=512, height=512)
    job = ada.post(f"/v1/projects/{project.id}/generations", body(image, count=8)).json
    assert job["params"]["batch_size"] == 4  # 64 squares of 128 at once


def test_its_work_is_what_is_drawn_of_it(ada: Any, project: Any, session_of: Any) -> None:
    with session_of() as session:
        image = make_image(session, project, width=256, height=512)
    params = {"inference_steps": 10}
    wanted = {"pictures": [*body(image, strength=0.5)["pictures"], {"prompt": "eiei21girl"}], "params": params}
    answer = ada.post(f"/v1/projects/{project.id}/generations", wanted)
    inputs = told(session_of, answer)
    stages = kinds.GENERATE.stages(GenerateParams(width=128, height=128, inference_steps=10), inputs)
    assert stages["generating"] == 10 * (0.5 * 256 * 512 + 128 * 128)


def test_a_dry_run_keeps_no_mask(ada: Any, project: Any, image: Any, runtime: Any) -> None:
    answer = ada.post(f"/v1/projects/{project.id}/generations?dry_run=true", body(image, mask=text(mask())))
    assert (answer.status_code, answer.json["pictures"]) == (200, 1)
    assert stored_masks(runtime) == []


def test_a_request_that_is_sent_again_makes_no_second_job(ada: Any, project: Any, image: Any, runtime: Any) -> None:
    path, key = f"/v1/projects/{project.id}/generations", {"Idempotency-Key": "again"}
    first = ada.post(path, body(image, mask=text(mask())), headers=key)
    second = ada.post(path, body(image, mask=text(mask())), headers=key)
    assert first.status_code == second.status_code == 202
    assert first.json["id"] == second.json["id"]
    assert len(stored_masks(runtime)) == 1
    problem(ada.post(path, body(image, mask=text(mask(mode="1"))), headers=key), 422, "idempotency_key_reused")


@pytest.mark.parametrize("settings", [{"max_queued_jobs": 1}])
def test_a_refused_job_leaves_no_mask(ada: Any, project: Any, image: Any, runtime: Any) -> None:
    path = f"/v1/projects/{project.id}/generations"
    assert ada.post(path, body(image)).status_code == 202
    problem(ada.post(path, body(image, mask=text(mask()))), 429, "too_many_queued_jobs")
    assert stored_masks(runtime) == []
