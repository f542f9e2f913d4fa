"""Tags, captions and trigger words, as people and their tools write them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from shared import images
from shared.catalog.kinds import DrawnImage, GenerateResult
from shared.models import Image
from tests.api.bodies import PROJECT, upload
from tests.api.problems import problem
from tests.factories import make_job, make_project

FOX = {"feature_tags": [r"fox \(animal\)", "(long hair:1.2)", "^_^"]}


def test_tags_mean_the_same_at_every_door(ada: Any, session_of: Any) -> None:
    made = ada.post("/v1/projects", PROJECT | FOX).json
    assert made["feature_tags"] == ["fox (animal)", "long hair", "^_^"]
    tags = ada.patch(f"/v1/projects/{made['id']}", FOX).json["feature_tags"]
    assert tags == made["feature_tags"]
    image = upload(ada, made["id"], tags=r"smile，o_o、(red_hat:1.1)").json
    assert image["tags"] == ["fox (animal)", "long hair", "^_^", "smile", "o_o", "red hat"]
    changed = ada.patch(f"/v1/images/{image['id']}", {"tags": [r"fox \(animal\)", "long_hair"]})
    assert changed.json["tags"] == ["fox (animal)", "long hair"]


@pytest.mark.parametrize(
    ("trigger", "code"),
    [
        ("fox", "trigger_is_ordinary"),
        ("Girl", "trigger_is_ordinary"),
        ("my_girl", "trigger_is_ordinary"),
        ("ears", "trigger_is_ordinary"),
        ("masterpiece", "trigger_is_quality"),
        ("Best Quality", "trigger_is_quality"),
        ("score_9", "trigger_is_quality"),
        ("42", "trigger_is_ordinary"),
        ("x", "trigger_is_ordinary"),
    ],
)
def test_a_trigger_that_means_something_already_brings_a_warning(ada: Any, trigger: str, code: str) -> None:
    given = PROJECT | {"trigger_word": trigger}
    planned, made = ada.post("/v1/projects?dry_run=true", given), ada.post("/v1/projects", given)
    assert (planned.status_code, made.status_code) == (200, 201)
    for answer in (planned, made, ada.get(f"/v1/projects/{made.json['id']}")):
        (warning,) = answer.json["warnings"]
        assert (warning["code"], warning["pointer"]) == (code, "/trigger_word")
        assert trigger in warning["detail"]
    assert ada.patch(f"/v1/projects/{made.json['id']}", {"trigger_word": "eiei21girl"}).json["warnings"] == []


@pytest.mark.parametrize("trigger", ["eiei21girl", "sks", "ohwx", "Kitsurika", "キツネ子"])
def test_a_trigger_that_means_nothing_yet_brings_none(ada: Any, trigger: str) -> None:
    assert ada.post("/v1/projects", PROJECT | {"trigger_word": trigger}).json["warnings"] == []


@pytest.mark.parametrize(
    "hidden",
    ["\u200b", "\u200d", "\u00ad", "\u202e", "\u2060", "\ufeff", "\u2028", "\u2029", "\x00", "\n", "\U000e0041"],
)
def test_text_that_nobody_sees_is_refused(ada: Any, hidden: str) -> None:
    for given, pointer in (
        ({"name": f"a{hidden}b"}, "/name"),
        ({"trigger_word": f"eiei{hidden}21"}, "/trigger_word"),
        ({"feature_tags": [f"fox{hidden}ears"]}, "/feature_tags/0"),
        ({"metadata": {f"a{hidden}": "1"}}, f"/metadata/a{hidden}"),
        ({"metadata": {"a": f"1{hidden}"}}, "/metadata/a"),
    ):
        refused = problem(ada.post("/v1/projects", PROJECT | given), 422, "invalid")
        assert pointer in [each["pointer"] for each in refused["errors"]]
    assert ada.get("/v1/projects").json["items"] == []


@pytest.mark.parametrize("blank", ["\u3164", "\u2800", "\u3000"])
def test_a_name_of_blanks_is_none(ada: Any, blank: str) -> None:
    problem(ada.post("/v1/projects", PROJECT | {"name": blank}), 422, "invalid")
    problem(ada.post("/v1/projects", PROJECT | {"trigger_word": blank}), 422, "invalid")


def test_the_same_letters_are_the_same_text(ada: Any) -> None:
    parts = unicodedata.normalize("NFD", "Éclair")
    given = {"name": parts, "trigger_word": parts, "feature_tags": [parts + "s"], "metadata": {"asset": parts}}
    made = ada.post("/v1/projects", PROJECT | given).json
    assert (made["name"], made["trigger_word"], made["metadata"]) == ("Éclair", "Éclair", {"asset": "Éclair"})
    assert made["feature_tags"] == ["éclairs"]
    for written in ("Éclair", parts):
        assert len(ada.get("/v1/projects", query_string={"metadata.asset": written}).json["items"]) == 1


@pytest.mark.parametrize("comma", ["，", "、", "､"])
def test_a_comma_of_any_script_stands_in_no_tag_and_no_trigger(ada: Any, comma: str) -> None:
    problem(ada.post("/v1/projects", PROJECT | {"feature_tags": [f"fox{comma}ears"]}), 422, "invalid")
    problem(ada.post("/v1/projects", PROJECT | {"trigger_word": f"fox{comma}ears"}), 422, "comma_in_trigger")


def test_what_is_drawn_has_the_tags_of_its_prompt(ada: Any, session_of: Any) -> None:
    with session_of() as session:
        project = make_project(session, ada.user_id, trigger_word="Eiei_Girl", subject_tags=["1girl"])
        job = make_job(session, project)
        prompt = r"Eiei_Girl, 1girl, (long_hair, fox \(animal\):1.2), o_o"
        drawn = DrawnImage(
            key="k", sha256="0" * 64, size_bytes=1, width=64, height=64, prompt=prompt, seed=1, view=None, framing=None
        )
        images.add_drawn(session, job, GenerateResult(images=[drawn]), "output")
        (image,) = session.query(Image).all()
        assert image.tags == ["long hair", "fox (animal)", "o_o"]


def test_two_tags_of_a_caption_say_nothing_denied_together(ada: Any) -> None:
    made = ada.post("/v1/projects", PROJECT | {"feature_tags": ["child", "fox ears"]}).json
    path = f"/v1/projects/{made['id']}"
    problem(ada.post("/v1/projects", PROJECT | {"feature_tags": ["porn", "fox", "child"]}), 422, "denied_tag")
    problem(upload(ada, made["id"], tags="porn"), 422, "denied_tag")
    problem(ada.post(f"{path}/generations", {"pictures": [{"prompt": "child, porn"}]}), 422, "denied_tag")
    rounds = [{"kind": "style", "target": 16, "prompt_tags": ["porn"]}, {"kind": "character"}]
    problem(ada.patch(path, {"plan": {"rounds": rounds}}), 422, "denied_tag")
    image = upload(ada, made["id"]).json["id"]
    problem(ada.patch(f"/v1/images/{image}", {"tags": ["porn"]}), 422, "denied_tag")
    box = {"box": [0, 0, 64, 64], "tags": ["porn"]}
    problem(ada.post(f"/v1/images/{image}/crops", {"mode": "boxes", "boxes": [box]}), 422, "denied_tag")


@pytest.mark.parametrize("settings", [{"denied_words": ("kaiju",), "denied_words_except": ()}])
def test_an_installation_denies_its_own_words(ada: Any) -> None:
    problem(ada.post("/v1/projects", PROJECT | {"feature_tags": ["kaiju"]}), 422, "denied_tag")
    assert ada.post("/v1/projects", PROJECT | {"feature_tags": ["nude"]}).status_code == 201
