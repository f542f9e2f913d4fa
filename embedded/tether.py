"""Run a command that ends when the process that started it does, however that came to an end.

`python -I -S tether.py PARENT SIGNAL USER COMMAND...`: a script of its own, since running Python
between fork and exec in a process that has threads is not safe. USER is `-` to stay who we are.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, signal_number: int, user: str, command: list[str]) -> None:
    if user != "-":
        become(user)  # first: a change of user would clear the parent-death signal
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        sys.exit("the parent ended before its child began")
    os.execvp(command[0], command)  # noqa: S606  (the command is the supervisor's own)


def become(user: str) -> None:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
