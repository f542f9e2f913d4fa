"""Which base models a folder and a list of rows give, and that one bad entry stops no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.catalog import BaseModel
from shared.checkpoints.scan import Scan
from tests.checkpoints import corpus
from tests.checkpoints.corpus import SD1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    corpus.write(folder / "good.safetensors", SD1)
    return folder


def look(folder: Path | None, rows: str | None = None) -> dict[str, BaseModel]:
    file = None
    if rows is not None:
        file = (folder.parent if folder else Path()) / "models.toml"
        file.write_text(rows)
    return Scan(folder, file).look()


def test_each_file_and_folder_is_a_base_model_of_its_name(folder: Path) -> None:
    corpus.write_folder(folder / "other")
    found = look(folder)
    assert list(found) == ["chibi", "good", "other"]
    assert [model.problem for model in found.values()] == ["", "", ""]
    assert found["good"].size_bytes == (folder / "good.safetensors").stat().st_size


def test_only_models_are_listed(folder: Path) -> None:
    for name in ("good.png", "readme.txt", "x.safetensors.part", ".hidden.safetensors", "good.yaml"):
        (folder / name).write_text("x")
    (folder / "loras").mkdir()
    assert list(look(folder)) == ["chibi", "good"]


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x.PTH", "x.bin", "x.pkl", "x.gguf"])
def test_a_pickle_is_listed_with_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x80\x02")
    assert "convert it to .safetensors" in look(folder)[name].problem
    assert look(folder)["good"].problem == ""


def test_a_new_file_is_found_and_one_that_is_gone_is_not(folder: Path) -> None:
    scan = Scan(folder, None)
    assert "new" not in scan.look()
    corpus.write(folder / "new.safetensors", SD1)
    assert scan.look()["new"].problem == ""
    (folder / "new.safetensors").unlink()
    assert "new" not in scan.look()


def test_a_file_is_read_again_only_when_its_size_or_time_has_changed(folder: Path) -> None:
    scan, path = Scan(folder, None), folder / "good.safetensors"
    assert scan.look()["good"].prediction_type == "epsilon"
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"cond_stage_model", b"xxxx_stage_model"))
    os.utime(path, ns=(time, time))
    assert scan.look()["good"].problem == ""  # its size and time are as they were
    os.utime(path, ns=(time + 1, time + 1))
    assert scan.look()["good"].problem != ""


def test_a_row_without_a_path_says_more_of_a_file(folder: Path) -> None:
    found = look(folder, '[good]\nprediction_type = "v_prediction"\n[missing]\nresolution = 512\n')
    assert (found["good"].problem, found["good"].prediction_type) == ("", "v_prediction")
    assert "row [missing] names no `path`" in found["missing"].problem


def test_a_row_names_a_file_elsewhere_by_a_path_from_its_own_folder(folder: Path) -> None:
    (folder.parent / "configs").mkdir()
    found = look(folder, '[mine]\npath = "models/good.safetensors"\nconfig = "configs"\n')
    assert found["mine"].path == found["good"].path
    assert found["mine"].config == str(folder.parent / "configs")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('vea = "x.safetensors"', "unknown key `vea`; do you mean `vae`?"),
        ('name = "other"', "unknown key `name`; the keys are family,"),
        ("size_bytes = 5", "unknown key `size_bytes`"),
        (
            'prediction_type = "v"',
            "`prediction_type` is 'v', but must be one of epsilon, v_prediction, flow_pred",
        ),
        ('resolution = "512"', "`resolution` is '512', but must be a whole number"),
        ("resolution = 512.0", "`resolution` is 512.0"),
        ("resolution = true", "`resolution` is true"),
        ("resolution = 0", "`resolution` is 0"),
        ('zero_terminal_snr = "yes"', "`zero_terminal_snr` is 'yes', but must be true or false"),
        ('family = "sd3"', "`family` is 'sd3', but must be one of chibi,"),
        ('commercial_use = "maybe"', "`commercial_use` is 'maybe', but must be one of yes, no, ask, unknown"),
        ("hosting = true", "`hosting` is true"),
        ('vae = "~/vae.safetensors"', "`vae` is '~/vae.safetensors', but ~ is not expanded"),
        ("config = 5", "`config` is 5"),
        ('lineage = "ponny"', "`lineage` is 'ponny', but must be one of animagine,"),
        ("license = [1]", "`license` is [1]"),
    ],
)
def test_a_bad_value_is_named_by_file_row_and_key(folder: Path, line: str, what: str) -> None:
    found = look(
        folder, f'[bad]\npath = "models/good.safetensors"\n{line}\n\n[fine]\npath = "models/good.safetensors"\n'
    )
    assert found["bad"].problem.startswith("models.toml, row [bad]")
    assert what in found["bad"].problem
    assert (found["fine"].problem, found["good"].problem) == ("", "")
    (folder / "good.toml").write_text(f"{line}\n")
    found = look(folder)
    assert found["good"].problem.startswith("good.toml")
    assert what.split(",")[0] in found["good"].problem


def test_a_file_name_that_is_no_utf_8_is_shown_with_a_mark(folder: Path) -> None:
    corpus.write(folder / os.fsdecode(b"odd\xff.safetensors"), SD1)
    assert "printable characters" in look(folder)["odd\N{REPLACEMENT CHARACTER}"].problem


@pytest.mark.parametrize("name", ["x" * 101, "a\\u0000b", "a\\nb"])
def test_a_row_of_a_name_that_no_table_can_hold_is_refused(folder: Path, name: str) -> None:
    found = look(folder, f'["{name}"]\npath = "models/good.safetensors"\n')
    (bad,) = (model for name, model in found.items() if name not in ("chibi", "good"))
    assert "must have at most 100 printable characters" in bad.problem
    assert len(bad.name) <= 100
    assert bad.name.isprintable()
    assert found[bad.name] is bad


@pytest.mark.parametrize(
    ("line", "what"),
    [('lineage = "pony"', "sd15 has no lineages"), ('prediction_type = "flow_prediction"', "predicts epsilon or v")],
)
def test_what_the_family_does_not_have_is_refused(folder: Path, line: str, what: str) -> None:
    (folder / "good.toml").write_text(f"{line}\n")
    assert what in look(folder)["good"].problem


def test_a_place_in_the_home_folder_is_refused(folder: Path) -> None:
    assert "~ is not expanded" in look(folder, '[mine]\npath = "~/good.safetensors"\n')["mine"].problem


def test_a_list_that_is_no_toml_names_its_line_and_stops_nothing(folder: Path) -> None:
    found = look(folder, "[good]\nresolution = = 3\n")
    assert "line 2" in found["models.toml"].problem
    assert found["good"].problem == ""
    assert "models.toml" in look(folder, "good = 5\n")["good"].problem


def test_the_name_of_the_base_that_ships_is_taken(folder: Path) -> None:
    corpus.write(folder / "chibi.safetensors", SD1)
    found = look(folder, '[chibi]\npath = "models/good.safetensors"\n')
    assert found["chibi"].problem == ""
    assert found["chibi"].family == "chibi"
    taken = [model for model in found.values() if "choose another name" in model.problem]
    assert [model.name for model in taken] == [
        "chibi.safetensors",
        "models.toml, row [chibi]",
    ]


def test_two_entries_of_one_name_are_refused_and_both_named(folder: Path) -> None:
    corpus.write_folder(folder / "good")
    problem = look(folder)["good"].problem
    assert "good and good.safetensors" in problem
    (other,) = [corpus.write(folder.parent / "elsewhere.safetensors", SD1)]
    corpus.write(folder / "single.safetensors", SD1)
    problem = look(folder, f'[single]\npath = "{other}"\n')["single"].problem
    assert "row [single]" in problem
    assert "single.safetensors" in problem


def test_a_row_and_a_sidecar_for_one_file_are_one_too_many(folder: Path) -> None:
    (folder / "good.toml").write_text("resolution = 512\n")
    assert "both describe it" in look(folder, "[good]\nresolution = 512\n")["good"].problem


def test_a_sidecar_of_nothing_is_told(folder: Path) -> None:
    (folder / "god.toml").write_text("resolution = 512\n")
    assert "describes nothing" in look(folder)["god.toml"].problem


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert "can't be read" in look(missing)["missing"].problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_stops_no_other(folder: Path) -> None:
    corpus.write(folder / "secret.safetensors", SD1).chmod(0)
    assert "can't be read" in look(folder)["secret"].problem


def test_links_to_nothing_and_pipes_are_told(folder: Path) -> None:
    (folder / "link.safetensors").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.safetensors")
    found = look(folder)
    assert "not there" in found["link"].problem
    assert "neither a file nor a folder" in found["pipe"].problem
    assert found["good"].problem == ""


def test_no_message_tells_where_the_folder_lies(folder: Path) -> None:
    corpus.write_folder(folder / "good")
    corpus.write(folder / "chibi.safetensors", SD1)
    corpus.write(folder / "link.safetensors", SD1)
    (folder / "gone.toml").write_text("")
    (folder / "link.toml").write_text('vae = "nowhere"')
    os.mkfifo(folder / "pipe.safetensors")
    found = look(folder, '[a]\npath = "gone"\n[b]\nconfig = "gone"\n[c]\nx = 1\n[chibi]\n')
    problems = [model.problem for model in found.values() if model.problem]
    assert len(problems) == 8
    assert [problem for problem in problems if str(folder.parent) in problem] == []


def test_a_name_is_one_that_clients_can_send(folder: Path) -> None:
    corpus.write(folder / f"{'x' * 101}.safetensors", SD1)
    assert "at most 100" in look(folder)["x" * 100].problem
