"""Addresses in the settings: parts that would be ignored are refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from environs import EnvValidationError

from shared import addresses
from shared.addresses import Store
from shared.settings import Settings
from tests.shared.environment import NEEDED


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("s3://pictures", Store(bucket="pictures")),
        ("s3://pictures/", Store(bucket="pictures")),
        ("s3://my.pictures-2/team/a/", Store(bucket="my.pictures-2", prefix="team/a")),
        ("s3://pictures/Team_1/a.b-c", Store(bucket="pictures", prefix="Team_1/a.b-c")),
        ("file:///var/objects", Store(folder=Path("/var/objects"))),
    ],
)
def test_a_store_is_a_bucket_with_or_without_a_prefix_or_a_folder(url: str, meant: Store) -> None:
    assert addresses.store(url) == meant


@pytest.mark.parametrize(
    "url",
    [
        *("", "pictures", "gs://pictures", "s3://", "s3:///a", "file://", "file:///", "file://folder/objects"),
        *("s3://Pictures", "s3://key:secret@pictures", "s3://pictures:9000", "s3://p"),
        *("s3://pictures//a", "s3://pictures/a//b", "s3://pictures/a//", "s3://pictures/../a", "s3://pictures/a/./b"),
        *("s3://pictures/a b", "s3://pictures/a%20b", "s3://pictures/ä", "s3://pictures/a\\b", "s3://pictures/a*"),
        *("s3://pictures/a?region=x", "s3://pictures/a#b", f"s3://pictures/{'a' * 201}"),
        *("s3://pictures/projects", "s3://pictures/a/incoming/b"),
    ],
)
def test_another_address_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"its|it is|nothing"):
        addresses.store(url)


ODD = [
    *("", "files.example.com", "//files.example.com", "ftp://files.example.com", "http://", "https://:9000"),
    *("https://a b", "https://files:x", "https://files:0", "https://files:70000"),
    *("https://me@files", "https://me:secret@files", "https://files?x=1", "https://files?", "https://files#top"),
]


@pytest.mark.parametrize("url", [*ODD, "https://files.example.com/store", "https://files.example.com//"])
def test_another_address_of_a_stores_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="it"):
        addresses.store_server(url)


@pytest.mark.parametrize("url", ODD)
def test_another_address_of_the_service_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="it"):
        addresses.service(url)


def test_the_service_may_be_below_a_path_and_a_store_may_not() -> None:
    addresses.service("https://example.com/lora/")
    addresses.store_server("https://files.example.com:9000/")
    addresses.store_server("http://[::1]:9000")


@pytest.mark.parametrize(
    ("url", "good"),
    [
        *((f"redis{s}://:secret@host:6379/0", True) for s in ("", "s")),
        *(
            (url, True)
            for url in ("redis://host", "redis+socket:///run/redis.sock?virtual_host=1", "redis://a;redis://b")
        ),
        *(
            (url, False)
            for url in ("", "host:6379", "http://host", "amqp://host", "redis://host/queue", "redis://host:x")
        ),
        *((url, False) for url in ("redis://:a#b@host/0", "redis://:a/b@host/0", "redis://host/0#x")),
    ],
)
def test_a_broker_is_redis_with_the_number_of_a_database(url: str, good: bool) -> None:
    if good:
        addresses.broker(url)
    else:
        with pytest.raises(ValueError, match=r"it|after"):
            addresses.broker(url)


@pytest.mark.parametrize("url", ["postgres://host/name", "postgresql://host/name", "mysql://host/name", "bootlora.db"])
def test_a_database_without_our_driver_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="it must be"):
        addresses.database(url)


def test_all_addresses_that_are_wrong_are_told_at_once_and_without_their_passwords(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = {
        "BOOTLORA_DATABASE_URL": "postgres://me:hidden@host/name",
        "BOOTLORA_BROKER_URL": "redis://:hid#den@host/0",
        "BOOTLORA_STORAGE_URL": "s3://key:hidden@pictures/../a",
        "BOOTLORA_PUBLIC_URL": "https://example.com/?hidden=1",
        "BOOTLORA_S3_ENDPOINT": "http://me:hidden@store:9000",
        "BOOTLORA_S3_PUBLIC_ENDPOINT": "https://files.example.com/store",
    }
    for name, value in {**NEEDED, **wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvValidationError) as caught:
        Settings.from_env()
    told = str(caught.value)
    assert all(name in told for name in wrong)
    assert "hid" not in told
    assert "without a path" in told
