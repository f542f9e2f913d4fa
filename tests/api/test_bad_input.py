"""Bad requests get a stable code, and leave nothing half-written."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from typing import Any

import pytest

from shared import catalog
from shared.catalog.tokens import CLIP
from shared.models import Event, Image, Job, Project, User
from tests.api.bodies import PROJECT, upload
from tests.api.problems import problem
from tests.factories import make_curating, make_image, make_project, png


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": "a\x00b"}, "/name"),
        ({"name": "a\u202eb"}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"owner": "bob"}, "/owner"),
        ({"id": "prj_1"}, "/id"),
        ({"curation": "none"}, "/curation"),
        ({"feature_tags": "fox ears"}, "/feature_tags"),
        ({"feature_tags": ["fox ears, tail"]}, "/feature_tags/0"),
        ({"feature_tags": ["_ _"]}, "/feature_tags/0"),
        ({"trigger_word": " _"}, "/trigger_word"),
        ({"name": " "}, "/name"),
        ({"subject_tags": []}, "/subject_tags"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
        ({"metadata": {"a b": "1"}}, "/metadata/a b"),
        ({"metadata": {str(n): "1" for n in range(17)}}, "/metadata"),
        ({"plan": {"rounds": []}}, "/plan/rounds"),
        ({"plan": {"rounds": [{"kind": "character", "train": {"rank": 0}}]}}, "/plan/rounds/0/train/rank"),
        ({"plan": {"rounds": [{"kind": "character", "train": {"rank": "8"}}]}}, "/plan/rounds/0/train/rank"),
        ({"plan": {"rounds": [{"kind": "character", "framings": {"knees": 1}}]}}, "/plan/rounds/0/framings/knees"),
        ({"plan": {"rounds": [{"kind": "character", "train": {"learning_rate": 1e999}}]}}, None),
    ],
)
def test_a_wrong_field_is_pointed_at(ada, given, pointer):
    answer = ada.answer("POST", "/v1/projects", data=json.dumps(PROJECT | given), content_type="application/json")
    if pointer is None:
        problem(answer, 400, "invalid_json")
    else:
        assert pointer in [each["pointer"] for each in problem(answer, 422, "invalid")["errors"]]
    assert ada.get("/v1/projects").json["items"] == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"base_model": "sdxl"}, "unknown_base_model"),
        ({"trigger_word": "fox ears"}, "trigger_is_a_tag"),
        ({"trigger_word": "Solo"}, "trigger_is_a_tag"),
        ({"trigger_word": "fate, girl"}, "comma_in_trigger"),
        ({"feature_tags": ["solo"]}, "tag_in_both"),
        ({"trigger_word": "Fox_Ears"}, "trigger_is_a_tag"),
        ({"trigger_word": "from behind"}, "view_tag"),
        ({"feature_tags": ["full_body"]}, "view_tag"),
        ({"feature_tags": ["nude"]}, "denied_tag"),
        ({"trigger_word": "Nude"}, "denied_tag"),
        ({"plan": {"rounds": [{"kind": "character", "prompt_tags": ["a nude"]}]}}, "denied_tag"),
        ({"plan": {"rounds": [{"kind": "style"}, {"kind": "character"}]}}, "invalid_plan"),
        ({"plan": {"rounds": [{"kind": "style", "target": 16}]}}, "invalid_plan"),
        (
            {
                "plan": {
                    "rounds": [{"kind": "style", "target": 9}, {"kind": "style", "target": 8}, {"kind": "character"}]
                }
            },
            "invalid_plan",
        ),
    ],
)
def test_an_impossible_value_is_refused(ada, given, code):
    problem(ada.post("/v1/projects", PROJECT | given), 422, code)
    assert ada.get("/v1/projects").json["items"] == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "not_a_picture"),
        (b"not a picture", 422, "not_a_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not_a_picture"),
        (png(format="GIF"), 422, "not_a_picture"),
        (png(format="TIFF"), 422, "not_a_picture"),
        (png()[:-40], 422, "not_a_picture"),
        (png(31, 64), 422, "picture_too_small"),
        (png(32, 257), 422, "picture_too_narrow"),
        (png(3000, 2000, "1", 0), 413, "picture_too_large"),
    ],
    ids=["empty", "text", "svg", "gif", "tiff", "cut off", "small", "narrow", "bomb"],
)
@pytest.mark.parametrize("settings", [{"max_image_pixels": 2_000_000}])
def test_a_bad_picture_is_refused(ada, runtime, session_of, content, status, code):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    answer = ada.post(f"/v1/projects/{project_id}/images", data={"file": (io.BytesIO(content), "x.png")})
    problem(answer, status, code)
    assert list(runtime.storage.list("projects/")) == []
    with session_of() as session:
        assert session.query(Image).count() == session.query(Event).count() == 0


@pytest.mark.parametrize("settings", [{"max_upload_bytes": 1000, "max_body_bytes": 2000}])
def test_a_body_that_is_too_large_is_refused(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    problem(ada.post("/v1/projects", PROJECT | {"name": "x" * 3000}), 413, "too_large")
    problem(upload(ada, project_id, b"x" * 1001), 413, "picture_too_large")
    problem(upload(ada, project_id, b"x" * 200_000), 413, "too_large")


def test_an_upload_that_cannot_be_stored_leaves_no_object(ada, runtime, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id, state="running")
    problem(upload(ada, project.id), 409, "project_not_draft")
    assert list(runtime.storage.list("projects/")) == []


def test_a_narrow_box_is_refused(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    image_id = upload(ada, project_id, png(300, 40)).json["id"]
    boxes = [{"box": [0, 0, 40, 40]}, {"box": [0, 0, 300, 16]}]
    crops = {"mode": "boxes", "boxes": boxes}
    refused = problem(ada.post(f"/v1/images/{image_id}/crops", crops), 422, "box_too_narrow")
    assert [each["pointer"] for each in refused["errors"]] == ["/boxes/1/box"]


def test_a_number_of_many_digits_is_refused(ada):
    body = f'{{"name": {"9" * 5000}}}'
    problem(ada.answer("POST", "/v1/projects", data=body, content_type="application/json"), 400, "invalid_json")


def test_a_lone_surrogate_is_refused_as_slip_and_cursor(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    slip = ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": "\ud800"})
    assert 400 <= slip.status_code < 500, slip.json
    sealed = base64.urlsafe_b64encode(b'["2026-01-01T00:00:00+00:00", "\\ud800"]').decode()
    problem(ada.get(f"/v1/projects?cursor={sealed}"), 422, "bad_cursor")


def test_an_unknown_method_is_counted_as_other(app):
    for number in range(3):
        app.test_client().open("/v1/projects", method=f"INVENTED{number}")
    assert b"INVENTED" not in app.test_client().get("/metrics").data


def test_a_user_with_a_cap_of_zero_starts_no_job(ada, session_of):
    with session_of() as session:
        session.get_one(User, ada.user_id).max_queued_jobs = 0
        project, _ = make_curating(session, ada.user_id)
    problem(ada.post(f"/v1/projects/{project.id}/start"), 429, "too_many_queued_jobs")
    problem(ada.post(f"/v1/projects/{project.id}/retry"), 429, "too_many_queued_jobs")
    problem(ada.post(f"/v1/projects/{project.id}/rounds", {"kind": "character"}), 429, "too_many_queued_jobs")
    problem(ada.post(f"/v1/projects/{project.id}/rounds/1/candidates", {"count": 2}), 429, "too_many_queued_jobs")


@pytest.mark.parametrize("settings", [{"max_images_per_project": 1}])
def test_a_project_has_a_limit_of_pictures(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    assert upload(ada, project_id).status_code == 201
    problem(upload(ada, project_id), 409, "too_many_images")


@pytest.mark.parametrize("settings", [{"max_images_per_project": 4}])
def test_crops_and_edits_need_room_too(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    image_id = upload(ada, project_id).json["id"]
    crops = f"/v1/images/{image_id}/crops"
    problem(ada.post(crops, {"mode": "quadrants"}), 409, "too_many_images")
    assert ada.post(crops, {"mode": "boxes", "boxes": [{"box": [0, 0, 32, 32]}] * 2}).status_code == 202
    file = {"file": (io.BytesIO(png()), "a.png")}
    assert ada.change("POST", f"/v1/images/{image_id}/versions", None, data=file).status_code == 201
    file = {"file": (io.BytesIO(png()), "a.png")}
    problem(ada.change("POST", f"/v1/images/{image_id}/versions", None, data=file), 409, "too_many_images")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"mode": "boxes", "boxes": [{"box": [0, 0, 65, 64]}]}, "box_outside"),
        ({"mode": "boxes", "boxes": [{"box": [10, 0, 10, 64]}]}, "box_outside"),
        ({"mode": "boxes", "boxes": [{"box": [0, 0, 8, 64]}]}, "box_too_small"),
        ({"mode": "boxes"}, "invalid_boxes"),
        ({"mode": "auto", "boxes": [{"box": [0, 0, 64, 64]}]}, "invalid_boxes"),
        ({"mode": "thirds"}, "invalid"),
        ({"mode": "boxes", "boxes": [{"box": [0, 0, 64]}]}, "invalid"),
        ({"mode": "boxes", "boxes": [{"box": [-1, 0, 64, 64]}]}, "invalid"),
    ],
)
def test_a_crop_that_cannot_be_made_is_refused(ada, session_of, given, code):
    with session_of() as session:
        image = make_image(session, make_project(session, ada.user_id))
    problem(ada.post(f"/v1/images/{image.id}/crops", given), 422, code)
    with session_of() as session:
        assert session.query(Job).count() == 0


def test_a_start_without_what_it_needs_is_refused(ada, session_of):
    bare = ada.post("/v1/projects", PROJECT | {"feature_tags": []}).json["id"]
    problem(ada.post(f"/v1/projects/{bare}/start"), 422, "no_feature_tags")
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    problem(ada.post(f"/v1/projects/{project_id}/start"), 409, "too_few_references")
    with session_of() as session:
        assert session.get_one(Project, project_id).state == "draft"
        assert session.query(Event).count() == 0


def test_curation_in_the_wrong_state_is_refused(ada, session_of):
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        round_.state = "training"
    path = f"/v1/projects/{project.id}/rounds/1"
    image_id = ada.get(f"{path}/candidates").json["items"][0]["id"]
    problem(ada.put(f"{path}/decisions", {"accepted": [image_id]}), 409, "round_not_curating")
    problem(ada.change("POST", f"{path}/finish", {}), 409, "round_not_curating")
    problem(ada.post(f"{path}/candidates", {"count": 1}), 409, "round_not_curating")
    problem(ada.patch(f"/v1/images/{image_id}", {"decision": "accepted"}), 409, "round_not_curating")
    file = {"file": (io.BytesIO(png()), "x")}
    problem(ada.change("POST", f"/v1/images/{image_id}/versions", None, data=file), 409, "round_not_curating")


def test_decisions_are_all_or_none(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    path = f"/v1/projects/{project.id}/rounds/1"
    known = ada.get(path).json["decisions"]["pending"]
    stranger = f"img_{'0' * 26}"
    problem(ada.put(f"{path}/decisions", {"accepted": [known[0], stranger]}), 404, "not_found")
    problem(ada.put(f"{path}/decisions", {"accepted": known, "rejected": known}), 422, "invalid")
    assert ada.get(path).json["counts"]["pending"] == 3


@pytest.mark.parametrize("settings", [{"max_pictures_per_job": 3, "max_queued_jobs": 1}])
def test_generations_are_bounded(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
    path = f"/v1/projects/{project.id}/generations"
    wanted = {"prompt": "eiei21girl", "count": 2}
    refused = problem(ada.post(path, {"pictures": [wanted, wanted]}), 422, "too_many_pictures")
    assert refused["errors"] == [{"pointer": "/pictures", "detail": "at most 3 together"}]
    problem(ada.post(path, {"pictures": [wanted], "loras": [{"lora_id": f"lor_{'0' * 26}"}]}), 404, "not_found")
    assert ada.post(path, {"pictures": [wanted]}).status_code == 202
    refused = ada.post(path, {"pictures": [wanted]})
    problem(refused, 429, "too_many_queued_jobs")
    assert int(refused.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "word", ["nude", "(NUDE:1.2)", "nude.", "x; nude, y", "she is nude", "child_porn", "ｎｕｄｅ", "n.u.d.e", "nudеs"]
)
def test_denied_words_are_refused_by_every_route(ada, session_of, word):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        image = make_image(session, project)
    path, tag = f"/v1/projects/{project.id}", word.replace(",", "")
    box = {"box": [0, 0, 64, 64], "tags": [tag]}
    for answer in (
        ada.post("/v1/projects", PROJECT | {"feature_tags": [tag]}),
        ada.patch(path, {"subject_tags": [tag]}),
        ada.post(f"{path}/generations", {"pictures": [{"prompt": f"eiei21girl, {word}"}]}),
        ada.patch(f"/v1/images/{image.id}", {"tags": [tag]}),
        ada.post(f"/v1/images/{image.id}/crops", {"mode": "boxes", "boxes": [box]}),
        ada.post(f"{path}/images", data={"file": (io.BytesIO(png()), "x.png"), "tags": tag}),
        ada.post(f"{path}/uploads", {"content_type": "image/png", "tags": [tag]}),
    ):
        problem(answer, 422, "denied_tag")


def test_a_view_that_is_named_twice_counts_once(ada):
    rounds = [{"kind": "character", "views": ["side", "front", "side"]}]
    made = ada.post("/v1/projects", PROJECT | {"plan": {"rounds": rounds}})
    assert made.json["plan"]["rounds"][0]["views"] == ["side", "front"]


@pytest.mark.parametrize("settings", [{"max_images_per_project": 6}])
def test_drawn_pictures_do_not_count_towards_the_limit(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    candidate = ada.get(f"/v1/projects/{project.id}/rounds/1/candidates").json["items"][0]["id"]
    for status in (201, 201, 409):
        edited = {"data": {"file": (io.BytesIO(png()), "x.png")}, "headers": {"If-Match": "*"}}
        assert ada.post(f"/v1/images/{candidate}/versions", **edited).status_code == status


def test_a_prompt_that_is_too_long_is_refused(ada, session_of, monkeypatch):
    chibi = dataclasses.replace(catalog.FAMILIES["chibi"], text_limit=CLIP)  # as a family that reads no chunks
    monkeypatch.setitem(catalog.FAMILIES, "chibi", chibi)
    many = {"feature_tags": [f"tag{n} long" for n in range(20)]}
    for path in ("/v1/projects", "/v1/projects?dry_run=true"):
        refused = problem(ada.post(path, PROJECT | many), 422, "prompt_too_long")
        assert [each["pointer"] for each in refused["errors"]] == ["/feature_tags"]
    made = ada.post("/v1/projects", PROJECT)
    path = f"/v1/projects/{made.json['id']}"
    problem(ada.patch(path, many), 422, "prompt_too_long")
    assert ada.get(path).json["feature_tags"] == PROJECT["feature_tags"]
    fits, too_long = (
        {"prompt": ", ".join(["ears"] * count)} for count in (38, 39)
    )  # 75 tokens with the commas, and 77
    refused = problem(ada.post(f"{path}/generations", {"pictures": [fits, too_long]}), 422, "prompt_too_long")
    assert [each["pointer"] for each in refused["errors"]] == ["/pictures/1/prompt"]
    assert ada.post(f"{path}/generations", {"pictures": [fits]}).status_code == 202


def test_texts_of_any_length_are_taken_where_they_are_read_in_chunks(ada):
    many = {"feature_tags": [f"tag{n} long" for n in range(20)]}
    made = ada.post("/v1/projects", PROJECT | many)
    assert made.status_code == 201
    path = f"/v1/projects/{made.json['id']}/generations"
    assert ada.post(path, {"pictures": [{"prompt": ", ".join(["ears"] * 300)}]}).status_code == 202


def test_a_lora_in_a_prompt_is_refused_with_the_way_to_name_one(ada):
    made = ada.post("/v1/projects", PROJECT)
    path = f"/v1/projects/{made.json['id']}/generations"
    prompt = "1girl, <lora:her:0.8>"
    refused = problem(ada.post(path, {"pictures": [{"prompt": prompt}]}), 422, "lora_in_prompt")
    assert "in `loras` of the request" in refused["detail"]
    assert [each["pointer"] for each in refused["errors"]] == ["/pictures/0/prompt"]
    negative = {"pictures": [{"prompt": "1girl"}], "params": {"negative_prompt": prompt}}
    plan = {"rounds": [{"kind": "character", "generate": {"negative_prompt": prompt}}]}
    for answer, place in (
        (ada.post(path, negative), "/params/negative_prompt"),
        (ada.post("/v1/projects", PROJECT | {"plan": plan}), "/plan/rounds/0/generate/negative_prompt"),
    ):
        assert [each["pointer"] for each in problem(answer, 422, "lora_in_prompt")["errors"]] == [place]


def test_brackets_are_weights_only_where_that_is_said(ada, monkeypatch):
    made = ada.post("/v1/projects", PROJECT)
    path = f"/v1/projects/{made.json['id']}/generations"
    for prompt in ("(x:11)", "(" * 17):
        asked = {"pictures": [{"prompt": prompt}]}
        assert ada.post(path, asked | {"params": {"prompt_syntax": "plain"}}).status_code == 202
        refused = problem(ada.post(path, asked | {"params": {"prompt_syntax": "weighted"}}), 422, "bad_prompt")
        assert [each["pointer"] for each in refused["errors"]] == ["/pictures/0/prompt"]
    monkeypatch.setitem(
        catalog.FAMILIES, "chibi", dataclasses.replace(catalog.FAMILIES["chibi"], prompt_syntaxes=("plain",))
    )
    asked = {"pictures": [{"prompt": "1girl"}], "params": {"prompt_syntax": "weighted"}}
    problem(ada.post(path, asked), 422, "prompt_syntax_not_offered")


def test_a_word_that_brackets_part_is_still_denied(ada):
    made = ada.post("/v1/projects", PROJECT)
    asked = {"pictures": [{"prompt": "1girl, nu(de:1.1)"}], "params": {"prompt_syntax": "weighted"}}
    problem(ada.post(f"/v1/projects/{made.json['id']}/generations", asked), 422, "denied_tag")


def test_a_clip_skip_that_leaves_no_layer_is_refused(ada):
    made = ada.post("/v1/projects", PROJECT)
    for part in ("train", "generate"):
        plan = {"rounds": [{"kind": "character", part: {"clip_skip": 2}}]}
        refused = problem(ada.post("/v1/projects", PROJECT | {"plan": plan}), 422, "clip_skip_not_offered")
        assert refused["detail"].endswith("the largest is 1")
    asked = {"pictures": [{"prompt": "1girl"}], "params": {"clip_skip": 2}}
    problem(ada.post(f"/v1/projects/{made.json['id']}/generations", asked), 422, "clip_skip_not_offered")


def test_pictures_are_drawn_with_the_clip_skip_of_the_training(ada):
    plan = {"rounds": [{"kind": "character", "train": {"clip_skip": 1}}]}
    made = ada.post("/v1/projects", PROJECT | {"plan": plan})
    assert made.json["plan"]["rounds"][0]["generate"]["clip_skip"] == 1
    path = f"/v1/projects/{made.json['id']}/generations"
    for params, clip_skip in (({}, 1), ({"clip_skip": 0}, 0)):
        drawn = ada.post(path, {"pictures": [{"prompt": "1girl"}], "params": params})
        assert drawn.json["params"]["clip_skip"] == clip_skip


def test_a_sampler_that_the_family_does_not_offer_is_refused(ada, monkeypatch):
    made = ada.post("/v1/projects", PROJECT)
    chibi = dataclasses.replace(catalog.FAMILIES["chibi"], samplers=catalog.FLOW_SAMPLERS)
    monkeypatch.setitem(catalog.FAMILIES, "chibi", chibi)
    rounds = [{"kind": "character", "generate": {"sampler": "ddim"}}]
    refused = [
        problem(ada.post("/v1/projects", PROJECT | {"plan": {"rounds": rounds}}), 422, "sampler_not_offered"),
        problem(
            ada.post(
                f"/v1/projects/{made.json['id']}/generations",
                {"pictures": [{"prompt": "1girl"}], "params": {"sampler": "ddim"}},
            ),
            422,
            "sampler_not_offered",
        ),
    ]
    assert all("use one of euler, dpmpp_2m, unipc" in each["detail"] for each in refused)
    pointers = [error["pointer"] for each in refused for error in each["errors"]]
    assert pointers == ["/plan/rounds/0/generate/sampler", "/params/sampler"]
    rounds[0]["generate"]["sampler"] = "euler"
    assert ada.post("/v1/projects", PROJECT | {"plan": {"rounds": rounds}}).status_code == 201


EIGHTS = "not a multiple of 8; the nearest:"
SIZES = [
    ({"width": 100}, "size_not_offered", {"/width": f"{EIGHTS} 96 or 104"}),
    (
        {"width": 33, "height": 2047},
        "size_not_offered",
        {"/width": f"{EIGHTS} 32 or 40", "/height": f"{EIGHTS} 2040 or 2048"},
    ),
    (
        {"width": 2048, "height": 1024},
        "size_too_large",
        {"/width": "at most 720 in this shape", "/height": "at most 360 in this shape"},
    ),
    ({"width": 512, "height": 512, "batch_size": 5}, "batch_too_large", {"/batch_size": "at most 4 of this size"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code", "told"), SIZES, ids=["one side", "both sides", "area", "batch"])
def test_a_size_that_cannot_be_drawn_is_pointed_at_with_what_can(ada, session_of, given, code, told):
    with session_of() as session:
        done, round_ = make_curating(session, ada.user_id)
        done.state = round_.state = "completed"
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    character = {"kind": "character", "generate": given}
    plan = {"plan": {"rounds": [{"kind": "style", "target": 8}, character]}}
    refused = {
        "/params": ada.post(f"/v1/projects/{project_id}/generations", {"pictures": [{"prompt": "x"}], "params": given}),
        "/plan/rounds/1/generate": ada.post("/v1/projects", PROJECT | plan),
        "/generate": ada.post(f"/v1/projects/{done.id}/rounds", character),
    }
    for where, answer in refused.items():
        wanted = [{"pointer": where + pointer, "detail": detail} for pointer, detail in told.items()]
        assert problem(answer, 422, code)["errors"] == wanted
    changed = problem(ada.patch(f"/v1/projects/{project_id}", plan), 422, code)
    assert [each["pointer"] for each in changed["errors"]] == ["/plan/rounds/1/generate" + each for each in told]


def test_errors_of_the_http_layer_are_problems_too(ada):
    problem(ada.get("/v1/nothing"), 404, "not_found")
    problem(ada.get("/v1/projects/prj_1"), 404, "not_found")
    problem(ada.answer("PUT", "/v1/projects"), 405, "method_not_allowed")
    problem(ada.post("/v1/projects", data="name=x", content_type="text/plain"), 415, "unsupported_media_type")
    problem(ada.post("/v1/projects", data="{", content_type="application/json"), 400, "invalid_json")
    problem(ada.post("/v1/projects", data=b"\xff", content_type="application/json"), 400, "invalid_json")
    problem(ada.post("/v1/projects", data="[" * 9_000, content_type="application/json"), 400, "invalid_json")
    problem(ada.post("/v1/projects", [1]), 422, "invalid")
    assert "GET" in ada.answer("PUT", "/v1/projects").headers["Allow"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "cursor=nonsense", "cursor=W10", "state=good", "page=2", "created_after=yesterday",
              "created_after=0001-01-01T00:00:00%2B14:00", "metadata.a%20b=1", "cursor=WzEsMl0"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused(ada, query):
    assert ada.get(f"/v1/projects?{query}").status_code == 422, query


def test_the_answer_to_a_bug_shows_no_details(ada, app, monkeypatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("shared.usage.of_user", broken)
    answer = ada.get("/v1/me")
    problem(answer, 500, "internal")
    assert b"secret inside" not in answer.data


@pytest.mark.parametrize("key", ["", "btl_x", "Basic abc", "btl_00000000_" + "0" * 43 + "_000000"])
def test_a_bad_key_is_refused_by_every_route(app, key):
    answer = app.test_client().get("/v1/projects", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401
