"""The peak of this process's memory, since it began or was told to forget (by "5" in /proc/self/clear_refs).

Not by `getrusage`: what that says survives execve (Linux keeps it in the signal struct), so a small child of a large
process seems as large as its parent was.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_bytes() -> int:
    """The most that was resident at once."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:  # no Linux
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
