"""Questions with what is expected of them, from files of lines of JSON.

In:  a file as those of LongBench (`input`, `context`, `answers`, `all_classes`, `language`), UltraDomain (`input`,
     `context`, `answers` or `label`, `context_id`) and InfiniteBench (`context`, `input`, `answer`, `options`); one
     with `question` and `context_id`, whose texts are `contexts/{context_id}.txt` beside it; or for a gate one without
     contexts: `question`, `answers`, `evidence`, and `uri` of the document that has the evidence.
Out: a `QuestionSet`: all rows, or some of few contexts, with their contexts.
Wrong: a row that cannot be used is left out and named; a file without any that can be used is a `QuestionError`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from textwrap import shorten
from typing import Any

import fsspec

from memorag_pipeline.digests import canonical_json, text_digest, value_digest
from memorag_pipeline.errors import QuestionError
from memorag_pipeline.specs.values import Language
from memorag_pipeline.words import HAN

_ID = ("question_id", "id", "_id")
_QUESTION = ("question", "input")
_ANSWERS = ("answers", "answer", "label")
_CONTEXTS_OF_A_CHOICE = 3  # rows are chosen from at least this many contexts: a corpus of one text needs no search
_CONTEXTS = "contexts"  # folder of the texts beside a file, and in the URIs of questions on them
_LABEL = 60  # characters
_SAFE = re.compile(r"\w[\w.-]{0,99}")
_HAN = re.compile(f"[{HAN}]")


@dataclass(frozen=True)
class EvaluationQuestion:
    """A question, the answers that are right, and the spans of text that say so; `uri` ends the document's URI."""

    question_id: str
    question: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...] = ()
    uri: str | None = None
    language: Language = "en"

    @property
    def label(self) -> str:
        """What people know it by: its id, or the start of its text if its row gives none."""
        if self.question_id != _id_of(self.uri, self.question):
            return self.question_id
        return shorten(self.question, _LABEL, placeholder=" …").join('""')


@dataclass(frozen=True)
class QuestionSet:
    """`contexts` are texts by file name, the `uri` of the questions on them. `broken` says which rows were left out."""

    name: str
    questions: tuple[EvaluationQuestion, ...]
    contexts: Mapping[str, str]
    broken: tuple[str, ...]

    @property
    def language(self) -> Language:
        """That of most questions."""
        chinese = sum(question.language == "zh" for question in self.questions)
        return "zh" if 2 * chinese > len(self.questions) else "en"


@dataclass(frozen=True)
class _Row:
    """A row of a file; `holds_context` if the row itself contains the text that `question` is about."""

    line: int
    question: EvaluationQuestion
    holds_context: bool


def questions_digest(questions: Sequence[EvaluationQuestion]) -> str:
    """Digest of questions and what is expected of them."""
    return value_digest([asdict(question) for question in questions])


def read_question_set(
    uri: str, rows: int | None = None, seed: int = 0, storage_options: Mapping[str, Any] | None = None
) -> QuestionSet:
    """Read the file at `uri` (a local path, or what fsspec opens); at most `rows` of it, chosen by `seed`.

    Raises QuestionError.
    """
    options = dict(storage_options or {})
    found: list[_Row] = []
    broken: list[str] = []
    seen: set[str] = set()
    for line, value in _values(uri, options):
        try:
            row = _row(line, value)
        except ValueError as error:
            broken.append(f"line {line}: {error}")
            continue
        question_id = row.question.question_id
        if question_id in seen:
            broken.append(f"line {line}: its id {question_id!r} is that of a line before")
            continue
        seen.add(question_id)
        found.append(row)
    if not found:
        raise QuestionError(f"{uri}: no row of it can be used: {'; '.join(broken[:3]) or 'it has none'}")
    chosen = found if rows is None else _choose(found, rows, seed)
    contexts = _contexts(uri, options, chosen, broken)
    kept = tuple(row.question for row in chosen if not _has_context(row.question) or row.question.uri in contexts)
    if not kept:
        raise QuestionError(f"{uri}: none of its contexts can be read: {broken[-1]}")
    name = PurePosixPath(uri).name.removesuffix(".jsonl").removesuffix(".dev")
    return QuestionSet(name, kept, contexts, tuple(broken))


def _values(uri: str, options: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
    """Number and value of each line that is not empty; the value of one that is not JSON is a ValueError."""
    try:
        with fsspec.open(uri, "rb", **options) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line.decode("utf-8-sig"))
                    if b"\\ud" in line.lower():
                        canonical_json(value)  # half a surrogate pair can be written as JSON, but not kept as UTF-8
                except (ValueError, RecursionError) as error:
                    value = ValueError(f"is not JSON in UTF-8: {error}")
                yield number, value
    except FileNotFoundError:
        raise QuestionError(f"{uri}: there is no such file of questions; correct the path") from None
    except (OSError, ImportError, ValueError) as error:
        raise QuestionError(f"{uri}: cannot be read: {type(error).__name__}: {error}") from error


def _row(line: int, value: Any) -> _Row:
    """A line's question; ValueError says what it lacks."""
    if isinstance(value, ValueError):
        raise value
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    text = _text(value, _QUESTION)
    answers, evidence = _texts(value, _ANSWERS), _texts(value, ("evidence",))
    if not answers and not evidence:
        raise ValueError("has neither answers nor evidence to score by")
    choices = _texts(value, ("options",)) or _texts(value, ("all_classes",))
    if choices:
        letters = [chr(ord("A") + number) for number in range(len(choices))]
        text = "\n".join([text, *(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))])
        answers += tuple(
            letter for letter, choice in zip(letters, choices, strict=True) if choice in answers and len(letters) <= 26
        )
    holds_context, uri = _context_uri(value)
    question_id = next((str(value[name]) for name in _ID if value.get(name) not in (None, "")), "")
    language = _language(value.get("language"), text)
    return _Row(
        line,
        EvaluationQuestion(question_id or _id_of(uri, text), text, answers, evidence, uri, language),
        holds_context,
    )


def _id_of(uri: str | None, text: str) -> str:
    """The id of a question whose row has none."""
    return text_digest(f"{uri}\n{text}")[:16]


def _text(value: Mapping[str, Any], names: Sequence[str]) -> str:
    found = next((value[name] for name in names if name in value), None)
    if found is None:
        raise ValueError(f"has no {' or '.join(names)}")
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"its {next(name for name in names if name in value)} is not text, or is empty")
    return found.strip()


def _texts(value: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """The first of these values as texts; a single text becomes a list."""
    name = next((name for name in names if value.get(name) not in (None, "", [])), None)
    if name is None:
        return ()
    items = value[name] if isinstance(value[name], list) else [value[name]]
    if not all(isinstance(item, str | int | float) for item in items):
        raise ValueError(f"its {name} is neither a text nor a list of texts")
    return tuple(text for item in items if (text := str(item).strip()))


def _context_uri(value: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether the row holds its context, and the file name that the context gets; of a row without one, its `uri`."""
    context, context_id = value.get("context"), value.get("context_id")
    if context is None and context_id is None:
        uri = value.get("uri")
        if uri is not None and not isinstance(uri, str):
            raise ValueError("its uri is not text")
        return False, uri
    if context is not None and (not isinstance(context, str) or not context.strip()):
        raise ValueError("its context is not text, or is empty")
    name = str(context_id) if context_id is not None else text_digest(context or "")[:16]
    if not _SAFE.fullmatch(name):
        if context is None:
            raise ValueError(f"its context_id {name[:40]!r} is not the name of a file")
        name = text_digest(name)[:16]
    return context is not None, f"{_CONTEXTS}/{name}.txt"


def _has_context(question: EvaluationQuestion) -> bool:
    return question.uri is not None and question.uri.startswith(f"{_CONTEXTS}/")


def _language(said: Any, text: str) -> Language:
    if isinstance(said, str) and said.startswith(("en", "zh")):
        return "zh" if said.startswith("zh") else "en"
    return "zh" if 3 * len(_HAN.findall(text)) > len(text) else "en"


def _choose(rows: Sequence[_Row], count: int, seed: int) -> list[_Row]:
    """`count` rows of few contexts, in the order of the file."""
    draw = random.Random(seed)
    by_context: dict[str | None, list[_Row]] = {}
    for row in rows:
        by_context.setdefault(row.question.uri, []).append(row)
    groups = list(by_context.values())
    draw.shuffle(groups)
    most = -(-count // min(_CONTEXTS_OF_A_CHOICE, len(groups)))
    chosen: list[_Row] = []
    for group in groups:
        chosen += draw.sample(group, min(most, len(group), count - len(chosen)))
    return sorted(chosen, key=lambda row: row.line)


def _contexts(uri: str, options: Mapping[str, Any], rows: Sequence[_Row], broken: list[str]) -> dict[str, str]:
    """The contexts of rows by file name: from their lines, or from the folder beside the file."""
    first: dict[str, _Row] = {}
    for row in rows:
        if _has_context(row.question):
            first.setdefault(str(row.question.uri), row)
    inline = {row.line: name for name, row in first.items() if row.holds_context}
    again = _values(uri, options) if inline else ()
    found: dict[str, str] = {inline[line]: value["context"] for line, value in again if line in inline}
    for name, row in first.items():
        if row.holds_context:
            continue
        place = f"{uri.rpartition('/')[0]}/{name}" if "/" in uri else name
        try:
            with fsspec.open(place, "r", encoding="utf-8", newline="", **options) as file:
                found[name] = file.read()
        except (OSError, ValueError) as error:
            broken.append(f"line {row.line} and all others on it: {place} cannot be read: {type(error).__name__}")
    return found
