"""Data embedded in a text as base64: pictures, attachments, certificates. Nobody can read it or ask about it.

In:  the text of a document in any format.
Out: the text with a short mark instead of each run of such data: `[base64 data, 12,345 characters]`.

Data is the content of a data URI, and a run of at least 200 letters, digits, `+` and `/` (or `-`, `_`) in which
capitals, small letters and digits are mixed as only in base64. A run may span many lines, with the quotes, commas,
backslashes or `>` that programs and mail insert between them. Digests, one-line keys and long names stay.
"""

from __future__ import annotations

import re

_LEAST = 200  # characters of a run without a data URI
_RUN = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}={0,2}")
_ESCAPED_RUN = re.compile(r"(?:[A-Za-z0-9+_-]|\\?/){40,}={0,2}")  # in JSON, where a slash may be escaped
_URI = re.compile(r"data:[\w.+-]*(?:/[\w.+-]+)?(?:;[\w.+-]+=(?:\"[^\"\n]{0,100}\"|[\w.+-]+))*(;base64)?,", re.I)
_PAYLOAD = re.compile(r"(?:[A-Za-z0-9+/=_-]|%[0-9A-Fa-f]{2}|\\/|(?:\\[rn]|\s)+(?=[A-Za-z0-9+/]{60}))*")
_PERCENT = re.compile(r"[^\s\"'<>()\[\]{}`\\]*")
_LONGEST_URI = 100  # characters of a data URI without base64 that is kept
_BETWEEN = re.compile(r"(?:[\s\"'`,+.;>|*#&()-]|\\[rn]|\\){1,24}")
_LAST = re.compile(r"[A-Za-z0-9+/_-]{2,}={0,2}(?![\w+/=-])")
_CHANGES = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[A-Z])[a-z0-9]|(?<=[0-9])[A-Za-z]")
_LEAST_CHANGES = 0.25  # share of all characters; base64 has 0.6
_SMALL = re.compile("[a-z]+")
_LONGEST_SMALL = 2.6  # mean length of runs of small letters; base64 has 1.7, CamelCase 4
_SURE = 2000  # from this length a run of little variety, such as a picture of one colour, is data too
_SAMPLE = 20_000


def without_data(text: str) -> str:
    """The text without embedded data."""
    places = _uris(text) if "data:" in text or "DATA:" in text else []
    covered, runs = 0, _runs(text)
    kept, position = [], 0
    for start, end, name in sorted([*places, *((*run, "base64 data") for run in runs)]):
        if start < covered:
            continue
        kept += [text[position:start], f"[{name}, {end - start:,} characters]"]
        position = covered = end
    return "".join([*kept, text[position:]]) if kept else text


def _uris(text: str) -> list[tuple[int, int, str]]:
    found = []
    for match in _URI.finditer(text):
        if match[1]:
            payload = _PAYLOAD.match(text, match.end())
            if payload and payload.end() > match.end():
                found.append((match.start(), payload.end(), "base64 data"))
        elif "/" in match[0]:
            end = _end_of_uri(text, match.start(), match.end())
            if end - match.start() > _LONGEST_URI:
                found.append((match.start(), end, "data"))
    return found


def _end_of_uri(text: str, start: int, data: int) -> int:
    """Where a data URI that is not in base64 ends: at the sign that closes what opened before it, or at a space."""
    closing = {'"': '"', "'": "'", "(": ")", "<": ">"}.get(text[start - 1 : start])
    end = text.find(closing, data) if closing else -1
    return end if end >= 0 else _PERCENT.match(text, data).end()  # type: ignore[union-attr]


def _runs(text: str) -> list[tuple[int, int]]:
    """Runs of base64; a run over several lines is one."""
    found: list[tuple[int, int]] = []
    pattern = _ESCAPED_RUN if "\\/" in text else _RUN
    runs = [(match.start(), match.end()) for match in pattern.finditer(text)]
    at = 0
    while at < len(runs):
        first, (start, end) = at, runs[at]
        at += 1
        while at < len(runs) and _is_between(text, end, runs[at][0]):
            end = runs[at][1]
            at += 1
        if end - start + 40 < _LEAST and at - first == 1:
            continue
        if at - first > 1:
            end = _last_line(text, end)
        if end - start >= _LEAST and _is_data(text[start:end]):
            found.append((start, end))
    return found


def _is_between(text: str, end: int, start: int) -> bool:
    return start - end <= 24 and _BETWEEN.fullmatch(text, end, start) is not None


def _last_line(text: str, end: int) -> int:
    """The end of a shorter last line, if there is one."""
    between = _BETWEEN.match(text, end)
    last = _LAST.match(text, between.end()) if between else None
    if last is None or len(last[0]) > 100:
        return end
    is_padded = last[0].endswith("=") and len(last[0]) % 4 == 0
    is_mixed = len(_CHANGES.findall(last[0])) >= 2 and len(last[0]) % 4 in {0, 2, 3}
    return last.end() if is_padded or is_mixed else end


def _is_data(run: str) -> bool:
    run = re.sub(r"[^A-Za-z0-9+/]", "", run[:_SAMPLE].replace("\\n", "").replace("\\r", ""))
    kinds = [re.search(kind, run) for kind in ("[A-Z]", "[a-z]", "[0-9]")]
    if not all(kinds):
        return False
    if len(run) >= _SURE:
        return True
    small = _SMALL.findall(run)
    return len(_CHANGES.findall(run)) >= _LEAST_CHANGES * len(run) and sum(map(len, small)) <= _LONGEST_SMALL * len(
        small
    )
