"""Removing a reasoning model's thoughts from its reply: a thought is not an answer and not a citation.

In:  the text of a reply; whether its template had opened a thought already.
Out: the answer, and whether there was a thought; if the reply is only a thought, the answer is empty.
Wrong: nothing is raised. A mark in quotation marks, backticks or a code fence is text, as in an answer about marks.

A thought is between two marks, such as `<think>` and `</think>`. Its first mark is missing if the model's template
wrote it, and its last one if the reply was cut: the text on its side of the other mark is the thought.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|seed:think"
MARKS = re.compile(
    rf"""
      (?P<begin> <\s*(?:{_NAMES})\s*> | \[THINK\] | ◁think▷
        | <\|begin_of_thought\|> | <\|START_THINKING\|> | <\|channel>thought | <unused94>(?:thought)? )
    | (?P<end> <\s*/\s*(?:{_NAMES})\s*> | \[/THINK\] | ◁/think▷
        | <\|end_of_thought\|> | <\|END_THINKING\|> | <channel\|> | <unused95> )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "\u2018": "\u2019", "«": "»", "「": "」"}
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
# The messages of gpt-oss. Its decoded text has the channel names even if special tokens are left out.
_CHANNEL = re.compile(r"(?:<\|start\|>\s*\w*\s*)?<\|channel\|>\s*(\w+)(?:(?!<\|message\|>).)*<\|message\|>", re.DOTALL)
_END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|start)\|>.*", re.DOTALL)
_BARE_ANALYSIS, _BARE_FINAL = re.compile(r"\s*analysis(?=[A-Z\"'])"), "assistantfinal"
# Marks that some models put around the answer after a thought.
_AROUND = re.compile(
    r"\s*(?:<(?P<name>answer|response|solution|output)>(?P<tagged>.*)</(?P=name)>"
    r"|<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>)?"
    r"|<\|START_RESPONSE\|>(?P<response>.*?)(?:<\|END_RESPONSE\|>)?)\s*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Spoken:
    """The answer in a reply; `thought` says whether there was a thought."""

    text: str
    thought: bool = False


def spoken(reply: str, opened: bool = False) -> Spoken:
    """The answer in a reply. `opened`: the prompt ended within a thought, so the reply begins in it."""
    in_channels = _of_channels(reply)
    if in_channels is not None:
        return Spoken(in_channels.strip(), thought=True)
    kept, found = _outside(reply, opened)
    text = "".join(kept).strip()
    if not found:
        return Spoken(text)
    around = _AROUND.fullmatch(text)
    if around is not None:
        text = next(filter(None, around.group("tagged", "solution", "response")), "").strip()
    return Spoken(text, True)


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends within a thought, as the templates of some models do."""
    marks = list(MARKS.finditer(prompt))
    return bool(marks) and marks[-1]["begin"] is not None and not prompt[marks[-1].end() :].strip()


def _outside(text: str, opened: bool) -> tuple[list[str], bool]:
    """The pieces of a text outside of thoughts, and whether there is a thought."""
    kept: list[str] = []
    place, since, found = 0, 0 if opened else None, opened
    for mark in MARKS.finditer(text):
        if _is_text(text, mark, place, within=since is not None):
            continue
        if mark["begin"] is not None:
            since = mark.start() if since is None else since
            continue
        if since is None:  # the thought began with the reply
            kept.clear()
        elif _names_marks_only(text, since, mark):
            since = None
            continue
        else:
            kept.append(text[place:since])
        place, since, found = mark.end(), None, True
    if since is None:
        return [*kept, text[place:]], found
    # Never closed: cut, if it is where a thought begins; else a mark that the answer mentions.
    line = text[place:since].rpartition("\n")[2]
    if line.strip():
        return [*kept, text[place:]], found
    return [*kept, text[place:since]], True


def _is_text(text: str, mark: re.Match[str], place: int, within: bool) -> bool:
    """Whether a mark is quoted, or is in a code fence of the answer that begins at `place`."""
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    if before and _QUOTES.get(before) == after:
        return True
    return not within and len(_FENCE.findall(text[place : mark.start()])) % 2 == 1


def _names_marks_only(text: str, since: int, end: re.Match[str]) -> bool:
    """Whether an answer mentions the marks, as in `between <think>…</think>`: no word is between them."""
    begin = MARKS.match(text, since)
    line = text[:since].rpartition("\n")[2]
    return begin is not None and bool(line.strip()) and re.search(r"\w", text[begin.end() : end.start()]) is None


def _of_channels(text: str) -> str | None:
    """The channel `final` of gpt-oss, empty if the reply did not reach it; None for a reply without channels."""
    messages = list(_CHANNEL.finditer(text))
    if messages:
        ends = [*(message.start() for message in messages[1:]), len(text)]
        bodies = [text[message.end() : end] for message, end in zip(messages, ends, strict=True)]
        return "".join(
            _END_OF_MESSAGE.sub("", body)
            for message, body in zip(messages, bodies, strict=True)
            if message[1] == "final"
        )
    if _BARE_ANALYSIS.match(text):
        return text.rpartition(_BARE_FINAL)[2] if _BARE_FINAL in text else ""
    return None
