"""HTTP with retries: all tries of a write share an idempotency key, and a busy service is retried after a pause."""

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
from urllib.parse import urljoin, urlsplit

import requests
import requests.auth
from requests.exceptions import ChunkedEncodingError, ContentDecodingError

BROKEN_OFF = (ChunkedEncodingError, ContentDecodingError)
UNANSWERED = (requests.ConnectionError, requests.Timeout, *BROKEN_OFF)
BUSY = {429, 502, 503, 504}  # a retry may succeed
LOST = {0, 502, 504}  # no answer came, but the service may have done the request
CAP = "too_many"  # prefix of a 429's code when it is a cap, not a rate limit; waiting does not help until jobs have run
IN_PROGRESS = "idempotency_in_progress"  # an earlier try of this request is still running
TRIES = 6
LONGEST_PAUSE_SECONDS = 61.0  # one window of the rate limit; a longer Retry-After is an error at once
FIRST_PAUSE_SECONDS = 0.5  # doubled after each unanswered try
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
CHUNK_BYTES = 1 << 16

T = TypeVar("T")


class ApiError(Exception):
    """The service refused a request or did not answer (then `status` is 0). `code` is stable: branch on it."""

    def __init__(self, status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None):
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.after_lost_try = False  # an earlier try may have done the request

    def __str__(self) -> str:
        if len(self.errors) < 2:
            return self.detail
        places = (f"{each.get('pointer') or each.get('parameter')}: {each['detail']}" for each in self.errors)
        return "; ".join(places)


class Bearer(requests.auth.AuthBase):
    """Sends the API key. It is `auth`, not a plain header, because a .netrc file would replace a plain header."""

    def __init__(self, api_key: str):
        self.api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.api_key}"
        return request


class Http:
    """Requests to one service with one API key."""

    def __init__(self, url: str, api_key: str):
        self.url, api_key = url.strip().rstrip("/"), api_key.strip()
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", self.url, re.IGNORECASE):
            raise ApiError(0, "bad_url", f"{url!r} is not a service's URL; write for example http://127.0.0.1:8000")
        if not re.fullmatch(r"[\x21-\x7e]+", api_key):
            raise ApiError(0, "bad_key", "the API key is empty or has characters that no key has; copy it again")
        self._session = requests.Session()
        self._key = Bearer(api_key)

    def get(self, path: str, *, wait_seconds: float = 0, **params: Any) -> Any:
        """GET a path. The service may hold its answer for up to `wait_seconds`, until the resource has changed."""
        wait = {"Prefer": f"wait={int(wait_seconds)}"} if wait_seconds >= 1 else {}
        return _body(self._call("GET", path, headers=wait, params=params, patience=wait_seconds))

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
        """Change a resource if it still has the given `etag`. Without one, the current ETag is read from `read`."""
        etag = etag or self.etag(read or path)
        try:
            return _body(self._call(method, path, headers={"If-Match": etag}, **(form or {"json": body})))
        except ApiError as problem:
            if problem.status == 412 and problem.after_lost_try:
                problem.detail = (
                    "the answer to the first try was lost, so this change may have been made; read the resource again"
                )
            raise

    def etag(self, path: str) -> str:
        answer = self._call("GET", path)
        _body(answer)
        return answer.headers.get("ETag", "*")

    def delete(self, path: str) -> None:
        try:
            _body(self._call("DELETE", path))
        except ApiError as problem:
            if not (problem.code == "not_found" and problem.after_lost_try):
                raise

    def save(self, url: str | None, path: Path, sha256: str) -> Path:
        """Download a presigned link. The file appears only when it is complete and its SHA-256 matches."""
        if url is None:  # the service sends null to keys that may not download
            detail = "this API key lacks the scope 'artifacts:read'; download with a key that has it"
            raise ApiError(403, "missing_scope", detail)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            return _with_retries(lambda: self._receive(url, part, sha256)).replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _call(self, method: str, path: str, *, patience: float = 0, **request: Any) -> requests.Response:
        headers = {"Accept": "application/json", **request.pop("headers", {})}
        if method != "GET":
            headers["Idempotency-Key"] = str(uuid.uuid4())  # the same for every try, so the service acts once
        request |= {"auth": self._key, "headers": headers, "timeout": (CONNECT_SECONDS, READ_SECONDS + patience)}
        request["allow_redirects"] = False  # a redirect could leak the key to another host and turns a POST into a GET
        return _with_retries(lambda: self._send(method, self.url + path, **request))

    def _send(self, method: str, url: str, **request: Any) -> requests.Response:
        try:
            answer = self._session.request(method, url, **request)
        except UNANSWERED as error:
            raise _Again(_unanswered(url, error)) from error
        except (requests.RequestException, ValueError) as error:
            raise ApiError(0, "unsendable", f"can't send the request; check the URL: {error}") from error
        if answer.is_redirect:
            raise _moved(answer)
        if answer.ok:
            return answer
        problem = _problem(answer)
        capped = answer.status_code == 429 and problem.code.startswith(CAP)
        if (answer.status_code in BUSY and not capped) or problem.code == IN_PROGRESS:
            raise _Again(problem, answer.headers.get("Retry-After"))
        raise problem

    def _receive(self, url: str, part: Path, sha256: str) -> Path:
        found = hashlib.sha256()
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            # no API key: the presigned link grants the access
            with self._send("GET", url, stream=True, timeout=timeout) as answer, part.open("wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    found.update(chunk)
                    file.write(chunk)
        except requests.RequestException as error:
            raise _Again(_unanswered(url, error)) from error
        if found.hexdigest() != sha256:
            name = part.name.removesuffix(".part")
            raise _Again(ApiError(0, "sha256_mismatch", f"{name} arrived damaged (wrong SHA-256); download it again"))
        return part


class _Again(Exception):
    """Retry after a pause."""

    def __init__(self, problem: ApiError, retry_after: str | None = None):
        self.problem = problem
        self.retry_after = retry_after


def _with_retries(attempt: Callable[[], T]) -> T:
    """The result of `attempt`, retried up to `TRIES` times with pauses."""
    lost = False
    for number in range(TRIES):
        try:
            return attempt()
        except ApiError as problem:
            problem.after_lost_try = lost
            raise
        except _Again as again:
            lost |= again.problem.status in LOST
            pause = _pause(again.retry_after, number)
            if number + 1 == TRIES or pause > LONGEST_PAUSE_SECONDS:
                raise again.problem from again
            time.sleep(pause)
    raise AssertionError("unreachable")


def _pause(retry_after: str | None, number: int) -> float:
    """Retry-After if the service sent it, otherwise exponential backoff. Jitter spreads the retries of clients."""
    seconds = _seconds((retry_after or "").strip())
    if seconds is None:
        return random.uniform(0.5, 1) * FIRST_PAUSE_SECONDS * 2**number
    return max(seconds, 0.0) + random.uniform(0, 0.1)


def _seconds(retry_after: str) -> float | None:
    """Retry-After in seconds, from a number or an HTTP date; None if it is neither."""
    if re.fullmatch("[0-9]+", retry_after):
        return float(retry_after)
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None


def _problem(answer: requests.Response) -> ApiError:
    body = _object(answer) or {}
    detail = body.get("detail") or body.get("title") or f"the service answered {answer.status_code} {answer.reason}"
    errors = body.get("errors")
    errors = errors if isinstance(errors, list) else []
    listed = [each for each in errors if isinstance(each, dict) and "detail" in each]
    return ApiError(answer.status_code, str(body.get("code", "unknown")), str(detail), listed)


def _moved(answer: requests.Response) -> ApiError:
    there = urljoin(answer.url, answer.headers["Location"])
    parts = urlsplit(there)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.partition('/v1/')[0]}"
    asked = answer.url.partition("?")[0]
    return ApiError(
        answer.status_code, "moved", f"{asked} redirects to {there}; if the service is there, set the URL to {base}"
    )


def file_name(text: str) -> str:
    """A safe file name made of a name from the service: no path separators, drive letters or control characters."""
    return re.sub(r"[\x00-\x1f/\\:]", "_", text).strip(". ") or "_"


def _unanswered(url: str, error: Exception) -> ApiError:
    host = _host(url)
    if isinstance(error, BROKEN_OFF):
        return ApiError(0, "unreachable", f"the connection to {host} broke off; try again ({type(error).__name__})")
    return ApiError(0, "unreachable", f"{host} does not answer; is the service running? ({type(error).__name__})")


def _host(url: str) -> str:
    """The host and port of a URL, without user and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _body(answer: requests.Response) -> Any:
    if answer.status_code == 204:
        return None
    body = _object(answer)
    if body is None:
        detail = f"{_host(answer.url)} answers, but it is not Bootlora; check the URL and any proxy"
        raise ApiError(answer.status_code, "not_bootlora", detail)
    return body


def _object(answer: requests.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
