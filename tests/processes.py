"""The processes that a test has started, and the check that none of them is left behind."""

from __future__ import annotations

from pathlib import Path

import psutil


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def of_folder(folder: Path) -> list[psutil.Process]:
    """Living processes that name this folder in their command line, or work in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        places = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if str(folder) in " ".join(places) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
