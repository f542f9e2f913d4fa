"""How much memory processes take at most, as Linux counts it (proc(5): VmHWM)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from embedded.supervisor import Supervisor


@contextmanager
def watched(supervisor: Supervisor, name: str) -> Iterator[Callable[[], int]]:
    """A function that says by how many bytes a program and its children have grown at most since the beginning."""
    main = psutil.Process(supervisor.processes[name].popen.pid)
    group = [main, *main.children(recursive=True)]
    for process in group:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = {process.pid: process.memory_info().rss for process in group}
    yield lambda: sum(_peak(pid) - rss for pid, rss in before.items())


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
