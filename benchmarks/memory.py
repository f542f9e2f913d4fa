"""The peak memory of this process, since its start or since "5" was written to /proc/self/clear_refs.

`getrusage` doesn't serve: its peak survives execve (Linux keeps it in the signal struct), so that a small child of a
large process seems as large as its parent.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak_bytes() -> int:
    """The largest resident set so far."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
