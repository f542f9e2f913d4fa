"""The command line: the requests that it sends, its output and its errors."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bootlora import selection
from bootlora.cli import main
from tests.client.service import Answer, Request, Service


def run(service: Service, *words: str) -> Result:
    return CliRunner(env={"BOOTLORA_URL": service.url, "BOOTLORA_KEY": "btl_test"}).invoke(main, list(words))


def png(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(file, "PNG")
    return file.getvalue()


class Shop:
    """A project whose round has nine candidates."""

    def __init__(self, service: Service):
        self.files = {f"img_{number}": png(color) for number, color in enumerate(("red", "green", "blue") * 3, 1)}
        self.items = [
            {
                "id": id_,
                "created_at": f"2026-11-22T10:00:0{number}Z",
                "decision": "accepted" if number == 2 else "pending",
                "view": "front",
                "framing": "full_body",
                "url": f"{service.url}/files/{id_}",
                "sha256": hashlib.sha256(self.files[id_]).hexdigest(),
            }
            for number, id_ in enumerate(self.files, 1)
        ]
        self.decided: dict[str, Any] = {}

    def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path.startswith("/files/"):
            return Answer(self.files[path.rpartition("/")[2]])
        if path.endswith("/candidates"):
            return Answer({"items": self.items[::-1], "has_more": False})
        if path.endswith("/decisions"):
            self.decided = request.json
            assert request.headers["If-Match"] == '"3"'
        return Answer({"number": 1}, headers={"ETag": '"3"'})


@pytest.fixture
def shop(service: Service) -> Shop:
    shop = Shop(service)
    service.answer = shop.answer
    return shop


def test_a_project_is_created_with_her_tags(service: Service) -> None:
    service.script = [Answer({"items": [{"name": "chibi"}], "has_more": False}), Answer({"id": "prj_1"}, 201)]
    done = run(service, "projects", "create", "--trigger", "eiei21girl", "--features", "fox ears,  blonde hair")
    assert done.output == "prj_1\n"
    sent = service.requests[1].json
    assert sent["feature_tags"] == ["fox ears", "blonde hair"]
    assert sent["subject_tags"] == ["1girl", "solo"]
    assert sent["base_model"] == "chibi"


def test_base_models_are_listed_with_what_is_wrong_with_them(service: Service) -> None:
    chibi = {"name": "chibi", "family": "chibi", "prediction_type": "v_prediction", "resolution": 128, "license": "MIT"}
    bad = {**chibi, "name": "bad", "problem": "truncated", "available": False, "commercial_use": "no"}
    far = {**chibi, "name": "far", "problem": None, "available": False, "lineage": "pony"}
    service.script = [Answer({"items": [chibi, bad, far], "has_more": False})]  # the first as an earlier version does
    done = run(service, "models")
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.split()}
    assert "truncated" in lines["bad"]
    assert "pony" in lines["far"]
    assert "no live" in lines["far"]


def test_a_project_says_what_it_is_for(service: Service) -> None:
    service.script = [Answer({"id": "prj_1"}, 201)]
    words = ("--base-model", "chibi", "--intended-use", "commercial")
    assert run(service, "projects", "create", "--trigger", "eiei21girl", *words).output == "prj_1\n"
    assert service.requests[0].json["intended_use"] == "commercial"


def test_an_import_says_what_became_of_each_file(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "fox.zip"
    file.write_bytes(b"a zip")
    files = [
        {"name": "a.png", "outcome": "taken", "reason": None, "code": None, "image_id": "img_1"},
        {"name": "b.png", "outcome": "refused", "reason": "too small", "code": "picture_too_small", "image_id": None},
        {"name": "c.gif", "outcome": "left_out", "reason": "a picture as GIF", "code": None, "image_id": None},
    ]
    service.script = [
        Answer({"id": "job_1", "kind": "import", "state": "queued"}, 202),
        Answer({"id": "job_1", "kind": "import", "state": "succeeded"}),
        Answer({"items": files}),
    ]
    done = run(service, "import", "prj_1", str(file))
    assert done.exit_code == 0, done.output
    assert "taken 1, left out 1, refused 1" in done.output
    for file_ in files:
        assert all(str(file_[name] or "").replace("_", " ") in done.output for name in ("name", "outcome", "reason"))
    assert b"a zip" in service.requests[0].body


def test_an_error_is_one_sentence_and_exit_1(service: Service) -> None:
    service.script = [Answer({"code": "not_found", "detail": "there is no project prj_9"}, 404)]
    done = run(service, "projects", "start", "prj_9")
    assert done.exit_code == 1
    assert done.output == "Error: there is no project prj_9\n"


def test_without_a_key_it_says_what_to_do() -> None:
    done = CliRunner(env={"BOOTLORA_KEY": ""}).invoke(main, ["projects", "list"])
    assert done.exit_code == 2
    assert "BOOTLORA_KEY" in done.output


def test_help_needs_no_key() -> None:
    done = CliRunner(env={"BOOTLORA_KEY": ""}).invoke(main, ["curate", "--help"])
    assert done.exit_code == 0
    assert "1,4,7-9" in done.output


@pytest.mark.parametrize("plan", [b"", b"{rounds: 3}", b"\xff\xfe", b"[" * 100_000])
def test_a_plan_that_is_no_json_is_one_sentence(service: Service, tmp_path: Path, plan: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(plan)
    done = run(service, "projects", "create", "--trigger", "eiei21girl", "--plan", str(tmp_path / "plan.json"))
    assert done.exit_code == 2
    assert "plan.json is not valid JSON" in done.stderr
    assert service.requests == []


@pytest.mark.parametrize("plan", ["", "nowhere.json"])
def test_a_plan_that_can_not_be_read_is_one_sentence(service: Service, tmp_path: Path, plan: str) -> None:
    done = run(service, "projects", "create", "--trigger", "eiei21girl", "--plan", str(tmp_path / plan))
    assert done.exit_code == 2
    assert "Invalid value for '--plan'" in done.stderr


def test_a_plan_is_sent_as_it_is(service: Service, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"rounds": [{"kind": "style"}]}')
    service.script = [Answer({"id": "prj_1"}, 201)]
    words = ["--trigger", "eiei21girl", "--base-model", "chibi", "--plan", str(tmp_path / "plan.json")]
    run(service, "projects", "create", *words)
    assert service.requests[0].json["plan"] == {"rounds": [{"kind": "style"}]}


@pytest.mark.parametrize("below", ["file", "file/new", "file/new/newer"])
def test_a_folder_below_a_file_is_told_before_anything_is_asked(service: Service, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    done = run(service, "generate", "prj_1", "--prompt", "her", "--base", "--out", str(tmp_path / below))
    assert done.exit_code == 2
    assert "is a file" in done.stderr
    assert service.requests == []


def test_a_file_that_can_not_be_written_is_one_sentence(service: Service, shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").mkdir()
    done = run(service, "candidates", "prj_1", "1", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr == f"Error: {tmp_path}/sheet.png: Is a directory\n"


def test_a_picture_that_is_none_is_one_sentence(service: Service, shop: Shop, tmp_path: Path) -> None:
    shop.files["img_1"] = b"no picture"
    shop.items[0]["sha256"] = hashlib.sha256(b"no picture").hexdigest()
    done = run(service, "candidates", "prj_1", "1", "--out", str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: cannot identify image file")


@pytest.mark.parametrize(("name", "value"), [("BOOTLORA_URL", "localhost:8000"), ("BOOTLORA_KEY", "btl_secr\u00e9t")])
def test_a_wrong_url_or_key_is_one_sentence(name: str, value: str) -> None:
    env = {"BOOTLORA_URL": "http://localhost", "BOOTLORA_KEY": "btl_test", name: value}
    done = CliRunner(env=env).invoke(main, ["projects", "list"])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_a_missing_scope_is_told_by_its_name(service: Service) -> None:
    detail = "this API key lacks the scope 'projects:write'"
    service.script = [Answer({"code": "missing_scope", "detail": detail}, 403)]
    done = run(service, "projects", "start", "prj_1")
    assert done.stderr == f"Error: {detail}\n"


def test_pictures_without_links_lack_the_scope_to_download(service: Service, shop: Shop, tmp_path: Path) -> None:
    shop.items = [{**item, "url": None} for item in shop.items]
    done = run(service, "candidates", "prj_1", "1", "--out", str(tmp_path / "new"))
    assert done.exit_code == 1
    assert done.stderr == "Error: this API key lacks the scope 'artifacts:read'; download with a key that has it\n"
    assert not (tmp_path / "new").exists()


def test_candidates_come_with_a_numbered_sheet(service: Service, shop: Shop, tmp_path: Path) -> None:
    done = run(service, "candidates", "prj_1", "1", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "001_img_1.png").read_bytes() == shop.files["img_1"]
    assert Image.open(tmp_path / "sheet.png").width > 8 * 100


def test_curating_by_numbers_leaves_what_is_decided(service: Service, shop: Shop) -> None:
    done = run(service, "curate", "prj_1", "1", "--accept", "1,4,7-9", "--reject", "rest")
    assert done.output == "accepted 5, rejected 3\n"
    assert shop.decided["accepted"] == ["img_1", "img_4", "img_7", "img_8", "img_9"]
    assert shop.decided["rejected"] == ["img_3", "img_5", "img_6"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accept", "10"], "there is no candidate 10"),
        (["--accept", "1-3", "--reject", "3"], "candidates 3 are both accepted and rejected"),
        (["--accept", "first"], "'first' is not a number"),
    ],
)
def test_a_wrong_number_changes_nothing(service: Service, shop: Shop, words: list[str], said: str) -> None:
    done = run(service, "curate", "prj_1", "1", *words)
    assert done.exit_code != 0
    assert said in done.output
    assert shop.decided == {}


def test_a_picture_is_drawn_with_weighted_loras(service: Service, tmp_path: Path) -> None:
    picture = {"id": "img_1", "url": f"{service.url}/file", "sha256": hashlib.sha256(b"x").hexdigest()}
    service.script = [
        Answer({"id": "job_1", "kind": "generate", "state": "queued"}, 202),
        Answer({"id": "job_1", "kind": "generate", "state": "succeeded"}),
        Answer({"items": [picture], "has_more": False}),
        Answer(b"x"),
    ]
    words = ["--prompt", "eiei21girl, from behind", "--seed", "7", "--lora", "lor_1:0.8", "--lora", "lor_2"]
    done = run(service, "generate", "prj_1", *words, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    sent = service.requests[0].json
    assert sent["pictures"] == [{"prompt": "eiei21girl, from behind", "seed": 7, "count": 1}]
    assert sent["loras"] == [{"lora_id": "lor_1", "weight": 0.8}, {"lora_id": "lor_2", "weight": 1.0}]
    assert (tmp_path / "001_img_1.png").read_bytes() == b"x"


def test_generate_draws_from_another_picture(service: Service, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"grey")
    service.script = [
        Answer({"id": "job_1", "kind": "generate", "state": "queued"}, 202),
        Answer({"id": "job_1", "kind": "generate", "state": "succeeded"}),
        Answer({"items": [], "has_more": False}),
    ]
    words = ["--prompt", "eiei21girl", "--base", "--out", str(tmp_path / "out"), "--strength", "0.5"]
    mask = ["--mask", str(tmp_path / "mask.png")]
    done = run(service, "generate", "prj_1", *words, *mask, "--image", "img_1")
    assert done.exit_code == 0, done.output
    (wanted,) = service.requests[0].json["pictures"]
    assert (wanted["image"], wanted["strength"], wanted["mask"]) == ("img_1", 0.5, "Z3JleQ==")
    refused = run(service, "generate", "prj_1", *words)
    assert refused.exit_code == 2
    assert "--image" in refused.stderr


def test_a_dataset_is_a_folder_for_kohyas_trainers(service: Service, shop: Shop, tmp_path: Path) -> None:
    file = {
        "url": f"{service.url}/files/img_1",
        "sha256": shop.items[0]["sha256"],
        "filename": "eiei21girl.safetensors",
    }
    round_ = {"id": "rnd_1", "number": 1, "lora_id": "lor_1"}
    dataset = [{"image_id": "img_2", "captions": ["eiei21girl, 1girl, from side", "1girl, fox ears"]}]
    answers: dict[str, Any] = {
        "/v1/projects/prj_1": {"trigger_word": "eiei21girl"},
        "/v1/projects/prj_1/rounds": {"items": [round_], "has_more": False},
        "/v1/projects/prj_1/rounds/1": {**round_, "dataset": dataset},
        "/v1/projects/prj_1/images": {"items": shop.items, "has_more": False},
        "/v1/loras/lor_1": {
            "id": "lor_1",
            "files": {
                "kohya": file,
                "diffusers": file,
                "sidecar": file | {"filename": "eiei21girl.json"},
                "preview": file | {"filename": "eiei21girl.preview.png"},
            },
        },
    }
    service.answer = lambda request: (
        Answer(answers[path]) if (path := request.path.partition("?")[0]) in answers else shop.answer(request)
    )
    done = run(service, "download", "prj_1", "--round", "1", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "lora/kohya/eiei21girl.safetensors").exists()
    assert (tmp_path / "lora/diffusers/eiei21girl.safetensors").exists()
    assert (tmp_path / "lora/kohya/eiei21girl.json").exists(), "A1111 looks for it beside the LoRA"
    assert (tmp_path / "lora/kohya/eiei21girl.preview.png").exists()
    assert (tmp_path / "dataset/1_eiei21girl/001-caption-2.png").read_bytes() == shop.files["img_2"]
    assert (tmp_path / "dataset/1_eiei21girl/001-caption-2.txt").read_text() == "1girl, fox ears\n"
    assert (tmp_path / "dataset/1_eiei21girl/001.png").read_bytes() == shop.files["img_2"]
    assert (tmp_path / "dataset/1_eiei21girl/001.txt").read_text() == "eiei21girl, 1girl, from side\n"


def test_events_are_lines(service: Service) -> None:
    event = {"type": "round.completed", "timestamp": "2026-11-22T10:00:00+00:00", "data": {"seq": 3, "images": 16}}
    service.script = [Answer({"items": [event], "has_more": False})]
    done = run(service, "events", "prj_1")
    assert done.output.split(maxsplit=3)[:3] == ["3", "2026-11-22T10:00:00", "round.completed"]
    assert json.loads(done.output.split(maxsplit=3)[3]) == {"images": 16}


def test_ranges_of_numbers() -> None:
    assert selection.numbers("1, 4,7-9", range(1, 10), []) == [1, 4, 7, 8, 9]
    assert selection.numbers("none", range(1, 10), [1]) == []
    assert selection.numbers("rest", range(1, 10), [2, 3]) == [2, 3]


LORA = {
    "id": "lor_06h09ddk6tkqqgjcy5atphmjjh", "source": "imported", "name": "Fox girl", "family": "sdxl",
    "kinds": ["dora", "lora"], "trigger_word": "f0x", "license": "CC0-1.0",
    "files": {"original": {"size_bytes": 12_300_000}},
}  # fmt: skip


def test_loras_of_other_tools_are_brought_listed_and_deleted(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    file.write_bytes(b"the weights")
    service.script = [Answer(LORA, 201)]
    done = run(service, "loras", "add", str(file), "--trigger", "f0x", "--license", "CC0-1.0", "--family", "sdxl")
    assert done.exit_code == 0, done.output
    assert "12.3" in done.output
    sent = service.requests[0]
    assert (sent.method, sent.path) == ("POST", "/v1/loras")
    for part in (b"the weights", b'filename="fox.safetensors"', b'name="trigger_word"', b'name="license"', b"sdxl"):
        assert part in sent.body
    assert b'name="name"' not in sent.body, "what is not said, the file says"

    service.script = [Answer({"items": [LORA], "has_more": False})]
    assert "Fox" in run(service, "loras", "list").output
    service.script = [Answer(None, 204)]
    assert run(service, "loras", "delete", LORA["id"], "--yes").exit_code == 0
    assert (service.requests[-1].method, service.requests[-1].path) == ("DELETE", f"/v1/loras/{LORA['id']}")


def test_a_lora_that_can_t_be_used_says_why(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "fox.safetensors"
    file.write_bytes(b"x")
    why = "fox.safetensors: it changes OFT (x.oft_blocks), which is not read here"
    service.script = [Answer({"status": 422, "code": "lora_kind_not_read", "title": "x", "detail": why}, 422)]
    done = run(service, "loras", "add", str(file))
    assert done.exit_code != 0
    assert "oft_blocks" in done.output
