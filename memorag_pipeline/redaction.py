"""Secrets in URIs, and in texts that quote them: one definition for the whole pipeline.

In:  a URI, options for fsspec, or any text, such as a library's message.
Out: which part of the URI is a secret, or the text without such parts.

A secret is a password before the host (`s3://key:secret@bucket`), anything before the host of an HTTP URL
(`https://TOKEN@host`), and the value of a parameter that signs or logs in (`?sig=`, `X-Amz-Signature`). A URL that is
secret as a whole, such as that of a webhook, cannot be distinguished from any other URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus, unquote

STRUCK_OUT = "…"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*$", re.IGNORECASE)
_LONGEST_SCHEME = 64
# The part between :// and the host. After the colon of a host there is a port; a password may hold slashes, as in S3.
_LOGIN = re.compile(
    r"""(?P<user>[^/@:?\#'"\[]*) (?P<password>:(?!\d*(?:[/?\#'"]|$)) [^@]* (?:@[^/?\#@]*(?=@))*)? @""", re.VERBOSE
)
_QUERY = re.compile(r"""[?\#][^'"<>]*""")
_BETWEEN_PARAMETERS = re.compile(r"([?#&;])")
_BLANKS = re.compile(r"(\s+)")
_SECRET_NAME = re.compile(
    r"x-(amz|goog)-.*|(.*[-_.])?(sig|sas|jwt|pwd|pass|auth|code|key)|.*(token|secret|passw(or)?d|signature|credentials?"
    r"|authorization|(api|access|account|private)key(-?id)?|accessid|session)|key-pair-id|policy",
    re.IGNORECASE,
)
_ADDRESSES = ("endpoint_url", "endpoint", "base_url", "host")


def secret_in(uri: str) -> str | None:
    """The kind of secret in `uri`, without the secret itself; None if there is none."""
    for uri_in_it in _uris(uri):
        login = uri_in_it.login
        if login and login["password"]:
            return "a password before its host"
        if login and login["user"] and uri_in_it.is_http:
            return "a user or token before its host"
        for parameter in _BETWEEN_PARAMETERS.split(uri_in_it.query):
            name, equals, _ = parameter.partition("=")
            if equals and _is_secret(name):
                return f"the secret parameter {unquote(name)[:40]}"
    return None


def secret_in_options(options: dict[str, Any]) -> tuple[str, str] | None:
    """The fsspec option that is an address with a secret, and the kind of secret. Libraries quote these in errors."""
    client = options.get("client_kwargs")
    for place, values in (("", options), ("client_kwargs.", client if isinstance(client, dict) else {})):
        for name in _ADDRESSES:
            address = values.get(name)
            if isinstance(address, str) and (secret := secret_in(address)):
                return f"{place}{name}", secret
    return None


def secrets_in_options(options: dict[str, Any]) -> list[str]:
    """The values of fsspec options whose names say that they are secrets."""
    return [str(value) for name, value in options.items() if _is_secret(name) and isinstance(value, str)]


def redacted(text: str, *secrets: str) -> str:
    """`text` without the secrets in its URIs, the queries of HTTP URLs, and `secrets`, however they are quoted."""
    for form in sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True):
        text = text.replace(form, STRUCK_OUT)
    words = _BLANKS.split(text) if "://" in text else [text]
    return "".join(_without_secrets(word) if "://" in word else word for word in words)


@dataclass(frozen=True)
class _Uri:
    """A URI in a text without blanks; `after` is everything after its ://, up to the next one."""

    scheme: str
    after: str

    @property
    def is_http(self) -> bool:
        return self.scheme.lower().endswith(("http", "https"))

    @cached_property
    def login(self) -> re.Match[str] | None:
        return _LOGIN.match(self.after)

    @cached_property
    def query(self) -> str:
        found = _QUERY.search(self.after, self.login.end() if self.login else 0)
        return found[0] if found else ""


def _uris(text: str) -> Iterator[_Uri]:
    before, *others = text.split("://")
    for after in others:
        scheme = _SCHEME.search(before[-_LONGEST_SCHEME:])
        yield _Uri(scheme[0] if scheme else "", after)
        before = after


def _without_secrets(word: str) -> str:
    return "://".join([word.partition("://")[0], *map(_shown, _uris(word))])


def _shown(uri: _Uri) -> str:
    """The part after :// without secrets."""
    shown, query = uri.after, uri.query
    if query:
        place = shown.index(query, uri.login.end() if uri.login else 0)
        shown = shown[:place] + _without_values(query, uri.is_http) + shown[place + len(query) :]
    if uri.login and (uri.login["password"] or uri.is_http):
        shown = f"{STRUCK_OUT}@{shown[uri.login.end() :]}"
    return shown


def _without_values(query: str, is_http: bool) -> str:
    """The query of an HTTP URL is removed completely: any server may have its own parameters."""
    if is_http and query.startswith("?") and len(query) > 1:
        return f"?{STRUCK_OUT}"
    return "".join(map(_without_value, _BETWEEN_PARAMETERS.split(query)))


def _without_value(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={STRUCK_OUT}" if equals and _is_secret(name) else parameter


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(unquote(name)) is not None


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
