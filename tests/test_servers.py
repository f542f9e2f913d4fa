"""The servers that other tests depend on."""

from __future__ import annotations

import psycopg
import pytest
import redis
import requests

from tests.servers import S3, Postgres

pytestmark = pytest.mark.servers


def test_valkey_keeps_what_it_was_told(valkey_url: str) -> None:
    client = redis.Redis.from_url(valkey_url)
    assert client.ping()
    assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_valkey_lets_nobody_in_without_a_password(valkey_url: str) -> None:
    scheme, address = valkey_url.split(":", 1)[0], valkey_url.split("@")[1]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(f"{scheme}://{address}").ping()


def test_seaweedfs_lets_nobody_in_without_a_key(s3: S3) -> None:
    assert requests.get(s3.endpoint, timeout=5).status_code == 403


def test_each_database_is_fresh(postgres: Postgres, postgres_url: str) -> None:
    other = postgres.make_database()
    assert other != postgres_url
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE mine (id int)")
    with psycopg.connect(other.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
