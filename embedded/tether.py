"""Run a command that ends when its parent process ends, for whatever reason.

`python -I -S tether.py PARENT SIGNAL USER COMMAND...`. This is a script of its own because it is not safe to run Python
between fork and exec in a process with threads. USER `-` keeps the present user.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, signal_number: int, user: str, command: list[str]) -> None:
    if user != "-":
        become(user)  # first, because a change of user clears the parent-death signal
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("the parent ended before its child started")
    os.execvp(command[0], command)  # noqa: S606  (the command is the supervisor's own)


def become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
