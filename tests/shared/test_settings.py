"""What the environment says, and how that is told when it says too little."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.stack import ROOT
from shared import catalog
from shared.settings import Settings

NEEDED = {
    "BOOTLORA_DATABASE_URL": "sqlite:////tmp/x.db",
    "BOOTLORA_BROKER_URL": "memory://",
    "BOOTLORA_STORAGE_URL": "file:///tmp/x",
    "BOOTLORA_SECRET_KEY": "a secret for tests, 32 characters and more",
}


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("no", False), ("1", True)])
def test_yes_and_no_are_read_as_such(monkeypatch: pytest.MonkeyPatch, said: str, meant: bool) -> None:
    for name, value in {**NEEDED, "BOOTLORA_WEBHOOK_ALLOW_HTTP": said}.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env().webhook_allow_http is meant


def test_the_admin_command_tells_which_settings_are_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shared.admin", "migrate"], env={}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bootlora-admin: ")
    assert all(name in done.stderr for name in NEEDED)
    assert "Traceback" not in done.stderr


def test_places_in_a_models_file_are_taken_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[mine]\nfamily = "sd15"\npath = "mine.safetensors"\nconfig = "configs"\nresolution = 512\n')
    mine = catalog.base_models(file)["mine"]
    assert (mine.path, mine.config) == (str(tmp_path / "mine.safetensors"), str(tmp_path / "configs"))


def test_a_models_file_may_name_no_configs(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[mine]\nfamily = "sd15"\npath = "folder"\nconfig = ""\nresolution = 512\n')
    assert catalog.base_models(file)["mine"].config == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mine", "is not TOML"),
        ("mine = 1", "is not a table; write [mine]"),
        (
            '[mine]\nfamily = "sd15"\npath = "x"\nresolution = 512\nname = "hers"',
            "unknown fields: name; use family, ",
        ),
        ('[mine]\nfamily = "sd15"\npath = "x"\nresolutoin = 512', "has unknown fields: resolutoin"),
        ('[mine]\nfamily = "sd15"\nresolution = 512', "missing required field `path`"),
        ('[mine]\nfamily = "sd15"\npath = "x"\nresolution = "512"', "Expected `int`, got `str` - at `$.resolution`"),
        ('[mine]\nfamily = "sd16"\npath = "x"\nresolution = 512', "unknown family 'sd16'; use one of chibi, "),
        ('[mine]\nfamily = "sd15"\npath = "x"\nresolution = 512\nlineage = "ponny"', "unknown lineage 'ponny'; "),
        ('[mine]\nfamily = "sd15"\npath = "x"\nresolution = 512\nprediction_type = "v"', "use one of epsilon, v_pred"),
    ],
)
def test_a_models_file_that_is_wrong_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        catalog.base_models(file)
    assert str(file) in str(refused.value)
