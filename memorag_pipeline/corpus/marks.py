"""Raised, lowered and struck text as plain text, so that no number and no word becomes another one.

In:  runs of text, each with how it is set.
Out: one text: `10^6`, `x_2`, `~~900~~750`.

Not by Unicode's own superscripts: tokenizers that fold compatibility forms (NFKC) read them as plain digits.
Ordinals (1st, 2e), chemical formulas (H2O) and signs (TM, notes by asterisk) are written as anybody types them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIGNS = {"tm": "™", "sm": "℠"}
_ORDINALS = frozenset({"st", "nd", "rd", "th", "er", "re", "ère", "ere", "e", "ème", "eme", "nde", "d", "o", "a", "os"})
_SHORTENED = re.compile(r"(?:\bM(?:me|lle|mes|lles|gr|r|rs|c)|\b[Nn]os?|\bD(?:r|ra)|\bS(?:t|te)|\bJ(?:r)|\b[Ss]r)")
_ROMAN = re.compile(r"\b[IVXLC]+$")
_ELEMENT = (
    "(?:A[cglmrstu]|B[aehikr]?|C[adeflmorsu]?|D[by]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|Kr?|L[airuv]|M[cdgnot]"
    "|N[abdehiop]?|O[gs]?|P[abdmortu]?|R[abefghnu]|S[bcegimnr]?|T[abcehilms]|U|V|W|Xe|Yb?|Z[nr])"
)
_FORMULA = re.compile(rf"(?:^|[^A-Za-z])(?:{_ELEMENT}|\d|[()\[\]])*(?:{_ELEMENT}|\((?:{_ELEMENT}|\d)+\))$")
_TOKEN = re.compile(r"[+\-−–]?\d+|[^\W\d_]")  # noqa: RUF001 (the signs that stand for minus)
_STRETCH = re.compile(r"\S(?:[^\n\t]*\S)?")


@dataclass(frozen=True)
class Run:
    """Text of one setting: raised (1), lowered (-1) or neither (0), and whether it is struck through."""

    text: str
    raised: int = 0
    struck: bool = False


def plain(runs: list[Run]) -> str:
    """The runs as one text."""
    if not any(run.raised or run.struck for run in runs):
        return "".join(run.text for run in runs)
    whole = ""
    merged = _merged(runs)
    for number, run in enumerate(merged):
        after = next((each.text for each in merged[number + 1 :] if each.text), "")
        text = run.text
        if run.raised:
            bare = text.strip()
            start = text[: len(text) - len(text.lstrip())]
            before = whole.removesuffix("~~") + start
            shown = _fraction(merged, number, before) or _raised(bare, run.raised, before, after)
            text = start + shown + text[len(start) + len(bare) :]
        if run.struck:
            text = _STRETCH.sub(lambda stretch: f"~~{stretch[0]}~~", text)
            if whole.endswith("~~") and text.startswith("~~") and number and merged[number - 1].struck:
                whole, text = whole[:-2], text[2:]
        whole += text
    return whole


def _merged(runs: list[Run]) -> list[Run]:
    merged: list[Run] = []
    for run in runs:
        if not run.text:
            continue
        if merged and (merged[-1].raised, merged[-1].struck) == (run.raised, run.struck):
            merged[-1] = Run(merged[-1].text + run.text, run.raised, run.struck)
        else:
            merged.append(run)
    return merged


def _fraction(runs: list[Run], number: int, before: str) -> str:
    """The numerator or denominator of a fraction set as raised digits, a slash and lowered digits; else empty."""

    def is_part(at: int, raised: int) -> bool:
        return 0 <= at < len(runs) and runs[at].raised == raised and runs[at].text.strip().isdecimal()

    def is_slash(at: int) -> bool:
        return 0 <= at < len(runs) and runs[at].text in {"/", "\u2044"}

    digits = runs[number].text.strip()
    if is_part(number, 1) and is_slash(number + 1) and is_part(number + 2, -1):
        return f" {digits}" if before[-1:].isdigit() else digits
    return digits if is_part(number, -1) and is_slash(number - 1) and is_part(number - 2, 1) else ""


def _raised(text: str, raised: int, before: str, after: str) -> str:
    if not any(letter.isalnum() for letter in text):
        return text
    if raised > 0:
        if text.lower() in _SIGNS:
            return _SIGNS[text.lower()]
        if text.lower() in _ORDINALS and (before[-1:].isdecimal() or _ROMAN.search(before)):
            return text
        if _SHORTENED.fullmatch(before[-1:] + text):
            return text
    elif text.isdecimal() and _FORMULA.search(before[-60:]):
        return text
    mark, following = "^" if raised > 0 else "_", after[:1]
    if not _TOKEN.fullmatch(text) or following.isalnum():
        return f"{mark}{{{text}}}"
    return mark + text
