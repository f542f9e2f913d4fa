"""Ids: unguessable, sortable by time of birth, and readable in a log."""

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

    Of two made by one process the later is greater, even within a millisecond: jobs go by the order of their ids.
    """
    global _last  # noqa: PLW0603  (the one that was given out before)
    fresh = (int(time.time() * 1000) << 82) | secrets.randbits(82)
    with _lock:
        number = _last = fresh if fresh >> 82 > _last >> 82 else _last + 1 + secrets.randbits(64)
    return f"{prefix}_{''.join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))}"


def youngest_birth(text: str) -> float:
    """When the youngest id that a text names was made, as seconds since the epoch; 0 if it names none."""
    return max((_born_at(digits) for digits in ID.findall(text)), default=0.0)


def _born_at(digits: str) -> float:
    number = 0
    for digit in digits:
        number = number * 32 + ALPHABET.index(digit)
    return (number >> 82) / 1000
