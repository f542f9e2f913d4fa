"""Answers that refuse a request."""

from __future__ import annotations

from typing import Any


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The body of an answer, which must be a problem with this status and code."""
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert answer.content_type == "application/problem+json"
    assert answer.json["type"] == f"urn:bootlora:problem:{code}"
    assert answer.json["status"] == status
    assert answer.json["instance"].endswith(answer.headers["X-Request-Id"])
    assert answer.json["detail"]
    return answer.json
