"""A user with many keys gets no more than one user's share."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from embedded.stack import Stack
from shared import users
from shared.outside.db import Database

pytestmark = [pytest.mark.servers, pytest.mark.slow]

KEYS, SHARE = 300, 50


def test_three_hundred_keys_of_one_user_get_the_share_of_one_user(tmp_path: Path) -> None:
    with Stack(tmp_path, settings={"BOOTLORA_REQUESTS_PER_MINUTE": str(SHARE)}) as stack:
        greedy, (other,) = keys_of(stack, "greedy", KEYS), keys_of(stack, "other", 1)
        began = time.monotonic()
        codes = Counter(asked(stack, key) for key in greedy)
        windows = 1 + int(time.monotonic() - began) // 60
        assert SHARE <= codes[200] <= SHARE * windows
        assert codes[200] + codes[429] == KEYS
        assert asked(stack, other) == 200


def keys_of(stack: Stack, name: str, count: int) -> list[str]:
    """Keys of a new user, made past the cap on keys."""
    secret = json.loads((stack.data_dir / "secrets.json").read_text())["secret_key"]
    database = Database(stack.database_url)
    with database.transaction() as session:
        user = users.create(session, name)
        made = [users.create_key(session, user, secret, name="test")[1] for _ in range(count)]
    database.dispose()
    return made


def asked(stack: Stack, key: str) -> int:
    return requests.get(f"{stack.url}/v1/me", headers={"Authorization": f"Bearer {key}"}, timeout=60).status_code
