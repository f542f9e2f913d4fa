"""HTTP as the service likes to be spoken to: one key for all tries of a write, patience when it is busy, one error."""

from __future__ import annotations

import hashlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import requests.auth

BUSY = {429, 502, 503, 504}  # the same request may succeed later
FULL = "too_many_queued_jobs"  # until jobs have run or somebody cancels some: not for the client to sit out
IN_PROGRESS = "idempotency_in_progress"  # an earlier try of this very request is still being worked on
TRIES = 6
LONGEST_PAUSE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5  # doubled after each try that nobody answered
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
CHUNK_BYTES = 1 << 16
BROKEN = (  # no answer, or half of one
    *(requests.ConnectionError, requests.Timeout),
    *(requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError),
)

T = TypeVar("T")


class ApiError(Exception):
    """The service said no, or could not be heard (then `status` is 0). `code` is stable: branch on it."""

    def __init__(self, status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None):
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.may_be_done = False  # by an earlier try of which nothing was heard

    def __str__(self) -> str:
        if self.status == 412 and self.may_be_done:
            return f"{self.detail} (an earlier try that got no answer may have changed it)"
        if len(self.errors) < 2:
            return self.detail
        places = (f"{each.get('pointer') or each.get('parameter')}: {each['detail']}" for each in self.errors)
        return "; ".join(places)


class Bearer(requests.auth.AuthBase):
    """The API key. As `auth` rather than a header, because a .netrc replaces a mere header."""

    def __init__(self, api_key: str):
        self.api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


class Http:
    """Requests to one service with one API key."""

    def __init__(self, url: str, api_key: str):
        self.url = _checked_url(url)
        self._session = requests.Session()
        self._key = Bearer(_checked_key(api_key.strip()))

    def get(self, path: str, *, wait_seconds: float = 0, **params: Any) -> Any:
        """What is at a path. `wait_seconds`: for how long the service may hold the answer back until there is news."""
        wait = {"Prefer": f"wait={int(wait_seconds)}"} if wait_seconds >= 1 else {}
        return _json(self._call("GET", path, headers=wait, params=params, patience=wait_seconds))

    def pages(self, path: str, **params: Any) -> Iterator[Any]:
        """The items of a list, page after page."""
        while True:
            page = self.get(path, **params)
            yield from page["items"]
            if not page.get("has_more"):
                return
            params["cursor"] = page["next_cursor"]

    def post(self, path: str, body: Any = None, **form: Any) -> Any:
        """Create or start something; `form` (files, data) instead of `body` makes it multipart."""
        return _body(self._call("POST", path, **(form or {"json": body or {}})))

    def change(
        self, method: str, path: str, body: Any = None, *, etag: str | None = None, read: str | None = None, **form: Any
    ) -> Any:
        """Change what is at a path, as it was when `etag` was read; without one, as it is now (read from `read`)."""
        etag = etag or self.etag(read or path)
        return _body(self._call(method, path, headers={"If-Match": etag}, **(form or {"json": body})))

    def etag(self, path: str) -> str:
        return self._call("GET", path).headers.get("ETag", "*")

    def delete(self, path: str) -> None:
        try:
            self._call("DELETE", path)
        except ApiError as error:
            if error.status != 404 or not error.may_be_done:
                raise

    def save(self, url: str, path: Path, sha256: str) -> Path:
        """Download a presigned link to a file, which appears only when it is whole and as it should be."""
        if not url:
            raise ApiError(403, "missing_scope", "downloads need an API key with the scope `artifacts:read`")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            return _patiently(lambda: self._receive(url, part, sha256)).replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _call(self, method: str, path: str, *, patience: float = 0, **request: Any) -> requests.Response:
        headers = {"Accept": "application/json", **request.pop("headers", {})}
        if method != "GET":
            headers["Idempotency-Key"] = str(uuid.uuid4())  # the same for every try: it is done once
        request |= {"auth": self._key, "headers": headers, "timeout": (CONNECT_SECONDS, READ_SECONDS + patience)}
        return _patiently(lambda: self._send(method, self.url + path, **request))

    def _send(self, method: str, url: str, **request: Any) -> requests.Response:
        try:
            answer = self._session.request(method, url, **{"allow_redirects": False, **request})
        except BROKEN as error:
            raise _Again(_unheard(url, error)) from error
        if answer.is_redirect:  # not followed: not with a key, and a POST would become a GET
            place = answer.headers["Location"]
            raise ApiError(answer.status_code, "moved", f"{urlsplit(url).netloc} points to {place}; use that address")
        if answer.ok:
            return answer
        problem = _problem(answer)
        if (answer.status_code in BUSY and problem.code != FULL) or problem.code == IN_PROGRESS:
            raise _Again(problem, answer.headers.get("Retry-After"))
        raise problem

    def _receive(self, url: str, part: Path, sha256: str) -> Path:
        found = hashlib.sha256()
        # without the API key: the link itself is the right to read
        request = {"stream": True, "timeout": (CONNECT_SECONDS, READ_SECONDS), "allow_redirects": True}
        try:
            with self._send("GET", url, **request) as answer, part.open("wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    found.update(chunk)
                    file.write(chunk)
        except requests.RequestException as error:
            raise _Again(_unheard(url, error)) from error
        if found.hexdigest() != sha256:
            name = part.name.removesuffix(".part")
            raise _Again(ApiError(0, "sha256_mismatch", f"{name} did not arrive as it was sent; download it again"))
        return part


class _Again(Exception):
    """Worth another try, after a pause."""

    def __init__(self, problem: ApiError, retry_after: str | None = None):
        self.problem = problem
        self.retry_after = retry_after


def _patiently(attempt: Callable[[], T]) -> T:
    """What an attempt gives, at one of its tries."""
    unheard = False
    for number in range(TRIES):
        try:
            return attempt()
        except _Again as again:
            if number + 1 == TRIES:
                raise again.problem from again
            unheard = unheard or again.problem.status == 0
            time.sleep(_pause(again.retry_after, number))
        except ApiError as error:
            error.may_be_done = unheard
            raise
    raise AssertionError("unreachable")


def _pause(retry_after: str | None, number: int) -> float:
    """As long as the service asks for, else longer each time. Others wait too, so never exactly as long as they do."""
    seconds = _seconds(retry_after or "")
    if seconds is None:
        return random.uniform(0.5, 1) * FIRST_PAUSE_SECONDS * 2**number
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS) + random.uniform(0, 0.1)


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After says: a number or a date (RFC 9110, 10.2.3). None: neither."""
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after)
    try:
        return (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not re.search(r"\s", url)
    except ValueError:
        good = False
    if not good:
        raise ApiError(0, "bad_url", f"{url!r} is no address of a service; write it as http://127.0.0.1:8000")
    return url


def _checked_key(key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ApiError(0, "bad_key", "this is no API key; one looks like btl_... and has no spaces")
    return key


def _problem(answer: requests.Response) -> ApiError:
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    detail = said.get("detail") or said.get("title") or f"the service answered {answer.status_code} {answer.reason}"
    return ApiError(answer.status_code, said.get("code", "unknown"), detail, said.get("errors"))


def _unheard(url: str, error: Exception) -> ApiError:
    host = urlsplit(url).netloc
    return ApiError(0, "unreachable", f"nothing answers at {host}; is the service running? ({type(error).__name__})")


def _body(answer: requests.Response) -> Any:
    return _json(answer) if answer.content else None


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        host = urlsplit(answer.url).netloc
        raise ApiError(
            answer.status_code, "not_json", f"what answers at {host} is not Bootlora; check the URL"
        ) from None


def file_name(text: str) -> str:
    """A name that the service gave, as that of a file: it leads to no other folder."""
    return re.sub(r"[^\w. -]+", "_", text).strip(" .") or "file"
