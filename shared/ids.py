"""Ids: unguessable, sortable by creation time, readable in logs."""

from __future__ import annotations

import re
import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
ID = re.compile(rf"[a-z]{{3}}_([{ALPHABET}]{{26}})")


_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters: 48 bits of milliseconds, then 82 random bits (the layout of a ULID).

    Ids of one process increase, even within a millisecond, because jobs run in the order of their ids.
    """
    global _last  # noqa: PLW0603  (the previous id)
    fresh = (int(time.time() * 1000) << 82) | secrets.randbits(82)
    with _lock:
        number = _last = fresh if fresh >> 82 > _last >> 82 else _last + 1 + secrets.randbits(64)
    return f"{prefix}_{''.join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))}"


def youngest_birth(text: str) -> float:
    """The creation time of the newest id in a text, in seconds since the epoch; 0 if it contains none."""
    return max((_born_at(digits) for digits in ID.findall(text)), default=0.0)


def _born_at(digits: str) -> float:
    number = 0
    for digit in digits:
        number = number * 32 + ALPHABET.index(digit)
    return (number >> 82) / 1000
