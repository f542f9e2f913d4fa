"""The object store: one protocol with two implementations.

`S3Storage` uses any S3 server through the minio SDK. `FolderStorage` keeps objects as files, for unit tests and single
machines. The same contract tests run on both.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Protocol, TypeVar, cast
from urllib.parse import quote

import stamina
import urllib3
from minio import Minio
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import DictType

from shared import addresses
from shared.errors import Invalid, NotFound, Unavailable

CHUNK_BYTES = 1 << 20
KEY_BYTES = 1024  # S3's own limit
OCTETS = "application/octet-stream"
PROBE = ".bootlora-probe"  # an object that is overwritten to check that the store takes writes
PROVEN_SECONDS = 60.0  # for this long after a successful write, `check` writes nothing

# Errors that are retried. All others are final.
TRANSIENT_CODES = frozenset({
    "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed", "OperationAborted",
})  # fmt: skip
MISSING_CODES = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchBucket", "ResourceNotFound"})


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object in the store. `sha256` is empty if a client has posted it, and in listings."""

    key: str
    size_bytes: int
    sha256: str = ""
    content_type: str = OCTETS


@dataclass(frozen=True, kw_only=True)
class PresignedPost:
    """A form that a client may post to `url`, with the file in its last field, `file`."""

    url: str
    fields: dict[str, str] = field(default_factory=dict)


T = TypeVar("T")


class Storage(Protocol):
    """Objects under keys such as `projects/ID/rounds/1/lora.safetensors`.

    A put replaces the whole object or changes nothing. A get checks the recorded SHA-256. Deleting a missing object is
    no error. Methods raise `NotFound` and `Unavailable`.
    """

    def prepare(self) -> None:
        """Create the bucket or the folder if it does not exist."""

    def check(self) -> None:
        """Raise `Unavailable` unless the store answers and takes writes. Does not retry."""

    def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> StoredObject: ...

    def put_from(self, key: str, file: IO[bytes], content_type: str = OCTETS) -> StoredObject:
        """Put what an open file holds, from its beginning."""

    def put_bytes(self, key: str, content: bytes, content_type: str = OCTETS) -> StoredObject: ...

    def put_new(self, key: str, content: bytes) -> None:
        """Put a small object at the top level, unless it exists. A server without conditional writes replaces it."""

    def peek(self, key: str) -> bytes | None:
        """The content of a small object, or None if it does not exist. Does not retry."""

    def get_to_file(self, key: str, path: Path) -> StoredObject:
        """Save the object as a file. After an error there is no file."""

    def get_bytes(self, key: str) -> bytes: ...

    def open(self, key: str) -> Iterator[bytes]:
        """The object in pieces. Raises `NotFound` at once, not at the first piece."""

    def stat(self, key: str) -> StoredObject: ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys start with the prefix, in the order of keys, with key and size only."""

    def delete(self, key: str) -> None: ...

    def delete_prefix(self, prefix: str) -> None: ...

    def presigned_get(self, key: str, expires: timedelta, filename: str | None = None) -> str:
        """A URL that downloads this object, as `filename`, until it expires."""

    def presigned_post(self, key: str, content_type: str, max_bytes: int, expires: timedelta) -> PresignedPost:
        """A form that puts one object of this type and at most this size under this key."""


def storage_from_url(
    url: str,
    *,
    endpoint: str = "",
    public_endpoint: str = "",
    access_key: str = "",
    secret_key: str = "",
    region: str = "us-east-1",
) -> Storage:
    """The store at `s3://bucket`, `s3://bucket/prefix` or `file:///folder`.

    Raises:
        ValueError: an address is invalid, or has a part that would be ignored.
    """
    address = addresses.store(url)
    if address.folder:
        return FolderStorage(address.folder)
    return S3Storage(
        address.bucket,
        address.prefix,
        endpoint=endpoint,
        public_endpoint=public_endpoint or endpoint,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
    )


def checked_key(key: str) -> str:
    """The key, if it is valid and can't lead out of the store's folder."""
    pieces = key.split("/")
    odd = any(piece in {"", ".", ".."} for piece in pieces) or re.search(r"[\x00-\x1f\x7f\\]", key)
    if odd or len(key.encode()) > KEY_BYTES:
        raise Invalid(f"bad object key {key!r}", code="bad_object_key")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix, if it is valid and not empty. It may end anywhere in a key."""
    checked_key(prefix.rstrip("/"))
    return prefix


class S3Storage:
    """An S3 server, through the minio SDK. With a prefix, only objects below it are listed or changed."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str,
        public_endpoint: str,
        access_key: str,
        secret_key: str,
        region: str,
    ):
        self.bucket = bucket
        self._above = f"{prefix}/" if prefix else ""  # the start of each object's name, before the key
        self._wrote_at = -math.inf  # monotonic
        self.public_endpoint = public_endpoint.rstrip("/")
        # urllib3 must not retry: `_retried` does, and `check` and `peek` must fail at once.
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60), retries=False, maxsize=16, cert_reqs="CERT_REQUIRED"
        )

        def client(url: str) -> Minio:
            try:
                parts = addresses.store_server(url)
            except ValueError as error:
                raise ValueError(f"the store's endpoint: {error}") from error
            return Minio(
                parts.netloc,
                access_key=access_key,
                secret_key=secret_key,
                secure=parts.scheme == "https",
                region=region,  # otherwise the client would ask the server for it
                http_client=self._pool,
            )

        self._client = client(endpoint)
        # A signature covers the host, so URLs for clients are signed for the public host.
        self._signer = client(public_endpoint)

    def prepare(self) -> None:
        def make() -> None:
            if self._client.bucket_exists(bucket_name=self.bucket):
                return
            try:
                self._client.make_bucket(bucket_name=self.bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

        self._retried(make, attempts=None, timeout_seconds=60)  # the store may be starting for the first time

    def check(self) -> None:
        with _s3_errors(self.bucket):
            if not self._client.bucket_exists(bucket_name=self.bucket):
                raise Unavailable(
                    f"there is no bucket {self.bucket!r}; run `bootlora-admin create-bucket`", code="store_unavailable"
                )
            if time.monotonic() - self._wrote_at > PROVEN_SECONDS:
                content = b"Bootlora writes this object to see that it can."  # not empty, so that it needs disk space
                self._put_once(PROBE, io.BytesIO(content), len(content), "", "text/plain")

    def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> StoredObject:
        with path.open("rb") as file:
            return self.put_from(key, file, content_type)

    def put_from(self, key: str, file: IO[bytes], content_type: str = OCTETS) -> StoredObject:
        return self._put(key, file, *_measured(file), content_type)

    def put_bytes(self, key: str, content: bytes, content_type: str = OCTETS) -> StoredObject:
        return self._put(key, io.BytesIO(content), len(content), hashlib.sha256(content).hexdigest(), content_type)

    def _put(self, key: str, file: IO[bytes], size_bytes: int, sha256: str, content_type: str) -> StoredObject:
        def put() -> None:
            file.seek(0)
            self._put_once(key, file, size_bytes, sha256, content_type)

        self._retried(put, key)
        return StoredObject(key=key, size_bytes=size_bytes, sha256=sha256, content_type=content_type)

    def _put_once(self, key: str, file: IO[bytes], size_bytes: int, sha256: str, content_type: str) -> None:
        self._client.put_object(
            bucket_name=self.bucket,
            object_name=self._name(key),
            data=cast(BinaryIO, file),
            length=size_bytes,
            content_type=content_type,
            metadata={"sha256": sha256} if sha256 else None,
        )
        self._wrote_at = time.monotonic()

    def put_new(self, key: str, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        headers: DictType = {"If-None-Match": "*", "Content-Type": OCTETS, "x-amz-meta-sha256": sha256}

        def put() -> None:
            try:  # private, because the SDK has no public conditional put; a test checks that it works
                self._client._put_object(self.bucket, self._name(key), content, headers)
            except S3Error as error:
                if error.code == "NotImplemented":
                    self._put_once(key, io.BytesIO(content), len(content), sha256, OCTETS)
                elif error.code not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    raise

        self._retried(put, key)

    def peek(self, key: str) -> bytes | None:
        try:
            with _s3_errors(key), self._response(key) as response:
                return response.read()
        except NotFound:
            return None

    def get_to_file(self, key: str, path: Path) -> StoredObject:
        def get() -> StoredObject:
            with _written_whole(path) as file, self._response(key) as response:
                return _copy(response, file, _described(key, response.headers))

        return self._retried(get, key)

    def get_bytes(self, key: str) -> bytes:
        def get() -> bytes:
            content = io.BytesIO()
            with self._response(key) as response:
                _copy(response, content, _described(key, response.headers))
            return content.getvalue()

        return self._retried(get, key)

    def open(self, key: str) -> Iterator[bytes]:
        response = self._retried(lambda: self._get(key), key)

        def pieces() -> Iterator[bytes]:
            try:
                with _s3_errors(key):
                    yield from _checked(response, _described(key, response.headers))
            finally:
                response.close()
                response.release_conn()

        return pieces()

    def stat(self, key: str) -> StoredObject:
        def stat() -> StoredObject:
            found = self._client.stat_object(bucket_name=self.bucket, object_name=self._name(key))
            return _described(key, found.metadata or {}, size_bytes=found.size or 0)

        return self._retried(stat, key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        def every() -> Any:
            return [*self._client.list_objects(bucket_name=self.bucket, prefix=self._above + prefix, recursive=True)]

        for found in self._retried(every):
            yield StoredObject(key=found.object_name.removeprefix(self._above), size_bytes=found.size or 0)

    def delete(self, key: str) -> None:
        self._retried(lambda: self._client.remove_object(bucket_name=self.bucket, object_name=self._name(key)), key)

    def delete_prefix(self, prefix: str) -> None:
        objects = [DeleteObject(self._name(found.key)) for found in self.list(checked_prefix(prefix))]

        def remove() -> None:
            for error in self._client.remove_objects(bucket_name=self.bucket, delete_object_list=objects):
                raise Unavailable(f"{error.name} could not be deleted: {error.code}", code="store_unavailable")

        self._retried(remove)

    def presigned_get(self, key: str, expires: timedelta, filename: str | None = None) -> str:
        return self._signer.presigned_get_object(
            bucket_name=self.bucket,
            object_name=self._name(key),
            expires=expires,
            response_headers={"response-content-disposition": attachment(filename)} if filename else None,
        )

    def presigned_post(self, key: str, content_type: str, max_bytes: int, expires: timedelta) -> PresignedPost:
        policy = PostPolicy(self.bucket, datetime.now(UTC) + expires)
        policy.add_equals_condition("key", self._name(key))
        policy.add_equals_condition("Content-Type", content_type)
        policy.add_content_length_range_condition(1, max_bytes)
        signed = self._signer.presigned_post_policy(policy)
        return PresignedPost(
            url=f"{self.public_endpoint}/{self.bucket}",
            fields={"key": self._name(key), "Content-Type": content_type, **signed},
        )

    def _name(self, key: str) -> str:
        """The name of an object in the bucket."""
        return checked_key(self._above + checked_key(key))

    def _get(self, key: str) -> urllib3.BaseHTTPResponse:
        return self._client.get_object(bucket_name=self.bucket, object_name=self._name(key))

    @contextmanager
    def _response(self, key: str) -> Iterator[urllib3.BaseHTTPResponse]:
        response = self._get(key)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    def _retried(
        self, act: Callable[[], T], key: str = "", *, attempts: int | None = 5, timeout_seconds: float = 30
    ) -> T:
        """Call `act`, retry transient errors, and turn errors into ours."""
        tries = stamina.retry_context(on=_transient, attempts=attempts, timeout=timeout_seconds, wait_max=3)
        with _s3_errors(key or self.bucket):
            for attempt in tries:
                with attempt:
                    return act()
        raise AssertionError("unreachable: the last attempt raises")


def _transient(error: Exception) -> bool:
    if isinstance(error, S3Error):
        return error.code in TRANSIENT_CODES
    return isinstance(error, urllib3.exceptions.HTTPError | MinioException | Damaged)


@contextmanager
def _s3_errors(name: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in MISSING_CODES:
            raise NotFound(f"no object {name!r}", code="object_not_found") from error
        raise Unavailable(f"the object store refused {name!r}: {error.code}", code="store_unavailable") from error
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        raise Unavailable(f"the object store can't be reached for {name!r}", code="store_unavailable") from error


def _described(key: str, headers: Any, size_bytes: int | None = None) -> StoredObject:
    return StoredObject(
        key=key,
        size_bytes=int(headers.get("content-length", 0)) if size_bytes is None else size_bytes,
        sha256=headers.get("x-amz-meta-sha256", ""),
        content_type=headers.get("content-type", OCTETS),
    )


class FolderStorage:
    """Objects as files below `objects/`, and their metadata below `about/`.

    Unlike in S3, there can't be both a key `a` and a key `a/b`. Our keys never need that.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self._objects = self.folder / "objects"
        self._about = self.folder / "about"

    def prepare(self) -> None:
        self._objects.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        if not self._objects.is_dir():
            raise Unavailable(
                f"there is no folder {self._objects}; run `bootlora-admin create-bucket`", code="store_unavailable"
            )
        try:
            with tempfile.TemporaryFile(dir=self._objects) as file:
                file.write(b"x")
        except OSError as error:
            raise Unavailable(
                f"the folder {self._objects} takes no files: {error}", code="store_unavailable"
            ) from error

    def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> StoredObject:
        with path.open("rb") as file:
            return self.put_from(key, file, content_type)

    def put_from(self, key: str, file: IO[bytes], content_type: str = OCTETS) -> StoredObject:
        return self._put(key, file, *_measured(file), content_type)

    def put_bytes(self, key: str, content: bytes, content_type: str = OCTETS) -> StoredObject:
        return self._put(key, io.BytesIO(content), len(content), hashlib.sha256(content).hexdigest(), content_type)

    def _put(self, key: str, file: IO[bytes], size_bytes: int, sha256: str, content_type: str) -> StoredObject:
        stored = StoredObject(key=checked_key(key), size_bytes=size_bytes, sha256=sha256, content_type=content_type)
        with _folder_errors(key):
            self._describe(stored)
            with _written_whole(self._objects / key) as target:
                shutil.copyfileobj(file, target, CHUNK_BYTES)
        return stored

    def _describe(self, stored: StoredObject) -> None:
        with _written_whole(self._about / stored.key) as about:
            about.write(json.dumps(asdict(stored)).encode())

    def put_new(self, key: str, content: bytes) -> None:
        with _folder_errors(key), tempfile.NamedTemporaryFile(prefix=".part-", dir=self._objects) as part:
            part.write(content)
            part.flush()
            try:
                os.link(part.name, self._file(key))  # only one of several writers succeeds
            except FileExistsError:
                return
            self._describe(StoredObject(key=key, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))

    def peek(self, key: str) -> bytes | None:
        try:
            with _folder_errors(key):
                return self._file(key).read_bytes()
        except NotFound:
            return None

    def get_to_file(self, key: str, path: Path) -> StoredObject:
        with _folder_errors(key), self._file(key).open("rb") as file, _written_whole(path) as target:
            return _copy(file, target, self.stat(key))

    def get_bytes(self, key: str) -> bytes:
        content = io.BytesIO()
        with _folder_errors(key), self._file(key).open("rb") as file:
            _copy(file, content, self.stat(key))
        return content.getvalue()

    def open(self, key: str) -> Iterator[bytes]:
        with _folder_errors(key):
            stored, file = self.stat(key), self._file(key).open("rb")

        def pieces() -> Iterator[bytes]:
            with file:
                yield from _checked(file, stored)

        return pieces()

    def stat(self, key: str) -> StoredObject:
        with _folder_errors(key):
            size_bytes = self._file(key).stat().st_size
            known = json.loads((self._about / key).read_bytes())
        return StoredObject(**{**known, "size_bytes": size_bytes})

    def list(self, prefix: str) -> Iterator[StoredObject]:
        files = (path for path in self._objects.rglob("*") if path.is_file() and not path.name.startswith(".part-"))
        sizes = {path.relative_to(self._objects).as_posix(): path.stat().st_size for path in files}
        for key in sorted(sizes):
            if key.startswith(prefix):
                yield StoredObject(key=key, size_bytes=sizes[key])

    def delete(self, key: str) -> None:
        with contextlib.suppress(NotFound), _folder_errors(key):
            self._file(key).unlink()
            (self._about / key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        for found in self.list(checked_prefix(prefix)):
            self.delete(found.key)

    def presigned_get(self, key: str, expires: timedelta, filename: str | None = None) -> str:
        """The file's URL. It never expires, and works only on this machine."""
        return self._file(key).as_uri()

    def presigned_post(self, key: str, content_type: str, max_bytes: int, expires: timedelta) -> PresignedPost:
        raise Unavailable(
            "a store in a folder takes no uploads; post the file to /v1/projects/ID/images", code="store_has_no_uploads"
        )

    def _file(self, key: str) -> Path:
        return self._objects / checked_key(key)


@contextmanager
def _folder_errors(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"no object {key!r}", code="object_not_found") from error
    except OSError as error:
        raise Unavailable(f"the storage folder failed on {key!r}: {error}", code="store_unavailable") from error


def _measured(file: IO[bytes]) -> tuple[int, str]:
    """Bytes and SHA-256 of an open file, which is at its beginning afterwards."""
    file.seek(0)
    sha256 = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size_bytes, sha256


class Damaged(Unavailable):
    """The object does not have the recorded SHA-256 or size."""

    code = "object_damaged"


def _checked(source: Any, stored: StoredObject) -> Iterator[bytes]:
    """The pieces of an object. Raises `Damaged` after the last one if its SHA-256 or size is wrong."""
    digest, size_bytes = hashlib.sha256(), 0
    while piece := source.read(CHUNK_BYTES):
        digest.update(piece)
        size_bytes += len(piece)
        yield piece
    if stored.sha256 and digest.hexdigest() != stored.sha256:
        raise Damaged(f"{stored.key!r} is damaged: its SHA-256 is not the one recorded")
    if size_bytes != stored.size_bytes:
        raise Damaged(f"{stored.key!r} is damaged: {size_bytes} of {stored.size_bytes} bytes arrived")


def _copy(source: Any, target: BinaryIO, stored: StoredObject) -> StoredObject:
    for piece in _checked(source, stored):
        target.write(piece)
    return stored


@contextmanager
def _written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing. It gets its name only when all of it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def attachment(filename: str) -> str:
    """A Content-Disposition header that saves under this name. The name may have any letters; line breaks are safe."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
