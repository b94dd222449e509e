"""Errors sent with status 200, as by gateways whose upstream failed.

In:  a response, before the client reads it.
Out: the same; one that holds an error gets that error's status, so it is waited for, retried and reported like it.
Wrong: nothing is raised; a response that is not JSON is left to its reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_KEY = "memorag.error"
_STATUS_KEYS = ("code", "status", "status_code", "http_status")
# Status by code, type or text of an error without a number.
_WORDS = (
    (400, ("context_length", "context length", "content_filter", "invalid_request", "bad_request", "badrequest")),
    (404, ("model_not_found", "not_found")),
    (401, ("api_key", "api key", "authentication", "unauthorized")),
    (429, ("rate_limit", "rate limit", "ratelimit", "too many", "too_many", "throttl", "exhausted", "quota")),
    (503, ("overloaded", "unavailable", "capacity")),
    (504, ("timeout", "timed out", "deadline")),
)
_UNKNOWN = 500


async def show_error(response: Any) -> None:
    """Give a response of status 200 that holds an error the status of that error; a hook of the HTTP client."""
    if response.status_code != 200:
        return
    await response.aread()
    error = _error_in(response.text)
    if error is not None:
        response.extensions[_KEY] = error
        response.status_code = _status(error)


def shown_error(response: Any) -> Any:
    """The error that `show_error` found in a response, if it did."""
    return response.extensions.get(_KEY)


def _error_in(text: str) -> Any:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, Mapping):
        return None
    if body.get("error"):
        return body["error"]
    choices = body.get("choices")
    if body.get("object") == "error" or (not choices and body.get("message") and body.get("code")):
        return body
    first = choices[0] if isinstance(choices, list) and choices else None
    return (first.get("error") or None) if isinstance(first, Mapping) else None


def _status(error: Any) -> int:
    if not isinstance(error, Mapping):
        return _of_words(str(error)) or _UNKNOWN
    for key in _STATUS_KEYS:
        value = error.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        digits = str(value).strip().removesuffix(".0")
        if digits.isdecimal() and 400 <= int(digits) < 600:
            return int(digits)
    named = " ".join(str(error.get(key) or "") for key in (*_STATUS_KEYS, "type"))
    return _of_words(named) or _of_words(str(error.get("message") or "")) or _UNKNOWN


def _of_words(text: str) -> int | None:
    low = text.lower()
    return next((status for status, words in _WORDS if any(word in low for word in words)), None)
