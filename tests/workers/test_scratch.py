import os
import signal
from pathlib import Path

from workers.scratch import sweep, workspace


def test_a_folder_is_there_while_it_is_needed(tmp_path: Path) -> None:
    with workspace(tmp_path) as folder:
        (folder / "file").touch()
        assert sweep(tmp_path) == 0
        assert folder.exists()
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_worker_has_left_is_removed(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with workspace(tmp_path) as folder:
            (folder / "file").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len([*tmp_path.iterdir()]) == 1
    assert sweep(tmp_path) == 1
    assert not [*tmp_path.iterdir()]
