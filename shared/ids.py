"""Ids: unguessable, sortable by time of birth, and readable in a log."""

from __future__ import annotations

import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters: 48 bits of milliseconds, then 82 random bits (the layout of a ULID)."""
    number = (int(time.time() * 1000) << 82) | secrets.randbits(82)
    return f"{prefix}_{''.join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))}"
