"""HTTP as the service likes to be spoken to: one key for all tries of a write, patience when it is busy, one error."""

from __future__ import annotations

import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3

BUSY = {429, 502, 503, 504}  # the same request may succeed later
IN_PROGRESS = "idempotency_in_progress"  # an earlier try of this very request is still being worked on
TRIES = 6
LONGEST_PAUSE_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5  # doubled after each try that nobody answered
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
CHUNK_BYTES = 1 << 16
# Tries are ours to count; see _patiently.
REDIRECTS = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)

T = TypeVar("T")


class ApiError(Exception):
    """The service said no, or could not be heard (then `status` is 0). `code` is stable: branch on it."""

    def __init__(self, status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None):
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []

    def __str__(self) -> str:
        if len(self.errors) < 2:
            return self.detail
        places = (f"{each.get('pointer') or each.get('parameter')}: {each['detail']}" for each in self.errors)
        return "; ".join(places)


class Http:
    """Requests to one service with one API key."""

    def __init__(self, url: str, api_key: str):
        self.url = url.rstrip("/")
        self._key = api_key
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, path: str, *, wait_seconds: float = 0, **params: Any) -> Any:
        """What is at a path. `wait_seconds`: for how long the service may hold the answer back until there is news."""
        wait = {"Prefer": f"wait={int(wait_seconds)}"} if wait_seconds >= 1 else {}
        known = {name: value for name, value in params.items() if value is not None}
        asked = f"{path}?{urlencode(known, doseq=True)}" if known else path
        return self._call("GET", asked, headers=wait, patience=wait_seconds).json()

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
        return _body(self._call("POST", path, **_content(body or {}, form)))

    def change(
        self, method: str, path: str, body: Any = None, *, etag: str | None = None, read: str | None = None, **form: Any
    ) -> Any:
        """Change what is at a path, as it was when `etag` was read; without one, as it is now (read from `read`)."""
        etag = etag or self.etag(read or path)
        return _body(self._call(method, path, headers={"If-Match": etag}, **_content(body, form)))

    def etag(self, path: str) -> str:
        return self._call("GET", path).headers.get("ETag", "*")

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def save(self, url: str, path: Path, sha256: str) -> Path:
        """Download a presigned link to a file, which appears only when it is whole and as it should be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            return _patiently(lambda: self._receive(url, part, sha256)).replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _call(self, method: str, path: str, *, patience: float = 0, **request: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._key}", **request.pop("headers", {})}
        if method != "GET":
            headers["Idempotency-Key"] = str(uuid.uuid4())  # the same for every try: it is done once
        return _patiently(lambda: self._send(method, self.url + path, patience, headers=headers, **request))

    def _send(self, method: str, url: str, patience: float = 0, **request: Any) -> urllib3.BaseHTTPResponse:
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS + patience)
        try:
            answer = self._pool(url).request(method, url, timeout=timeout, retries=REDIRECTS, **request)
        except urllib3.exceptions.HTTPError as error:
            raise _Again(_unheard(url, error)) from error
        if answer.status < 400:
            return answer
        problem = _problem(answer)
        if answer.status in BUSY or problem.code == IN_PROGRESS:
            raise _Again(problem, answer.headers.get("Retry-After"))
        raise problem

    def _receive(self, url: str, part: Path, sha256: str) -> Path:
        found = hashlib.sha256()
        try:
            # without the API key: the link itself is the right to read
            with self._send("GET", url, preload_content=False) as answer, part.open("wb") as file:
                for chunk in answer.stream(CHUNK_BYTES):
                    found.update(chunk)
                    file.write(chunk)
        except urllib3.exceptions.HTTPError as error:
            raise _Again(_unheard(url, error)) from error
        if found.hexdigest() != sha256:
            name = part.name.removesuffix(".part")
            raise _Again(ApiError(0, "sha256_mismatch", f"{name} did not arrive as it was sent; download it again"))
        return part

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Connections to the host of a URL, kept."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._pools:
            self._pools[origin] = _connections(parts.scheme, parts.netloc)
        return self._pools[origin]


def _connections(scheme: str, host: str) -> urllib3.PoolManager:
    """As the environment wants them: by a proxy, with other certificates."""
    environment = os.environ
    certificates = environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE") or certifi.where()
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return urllib3.PoolManager(ca_certs=certificates)
    user = urlsplit(proxy)
    named = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
    return urllib3.ProxyManager(
        proxy, ca_certs=certificates, proxy_headers=urllib3.make_headers(proxy_basic_auth=named)
    )


class _Again(Exception):
    """Worth another try, after a pause."""

    def __init__(self, problem: ApiError, retry_after: str | None = None):
        self.problem = problem
        self.retry_after = retry_after


def _patiently(attempt: Callable[[], T]) -> T:
    """What an attempt gives, at one of its tries."""
    for number in range(TRIES):
        try:
            return attempt()
        except _Again as again:
            if number + 1 == TRIES:
                raise again.problem from again
            time.sleep(_pause(again.retry_after, number))
    raise AssertionError("unreachable")


def _pause(retry_after: str | None, number: int) -> float:
    """As long as the service asks for, else longer each time. Others wait too, so never exactly as long as they do."""
    if retry_after is None:
        return random.uniform(0.5, 1) * FIRST_PAUSE_SECONDS * 2**number
    if retry_after.isdigit():
        seconds = float(retry_after)
    else:
        seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS) + random.uniform(0, 0.1)


def _problem(answer: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    detail = said.get("detail") or said.get("title") or f"the service answered {answer.status} {answer.reason}"
    return ApiError(answer.status, said.get("code", "unknown"), detail, said.get("errors"))


def _unheard(url: str, error: Exception) -> ApiError:
    host = urlsplit(url).netloc
    error = getattr(error, "reason", None) or error
    return ApiError(0, "unreachable", f"nothing answers at {host}; is the service running? ({type(error).__name__})")


def _body(answer: urllib3.BaseHTTPResponse) -> Any:
    return answer.json() if answer.data else None


def _content(body: Any, form: dict[str, Any]) -> dict[str, Any]:
    """What is sent: JSON, or the fields and files of a form."""
    return {"fields": {**form.get("data", {}), **form["files"]}} if form else {"json": body}
