"""Sequences of instructions, as the pipeline itself asks them.

    opening | context | closing  prompt  ending | output  end of turn | padding
                                                  ---- labelled ----

In:  records {context or context_id, kind, question, output}, or {conversations: [{role, content}, …]}.
Out: one sequence for each record.
Wrong: a record that cannot be used is an `UnusableError` with the reason.

A context that is too long keeps the part that contains the output, wherever it is, or otherwise its beginning.
Sentences to be quoted that are not in that part are left out of the output. A conversation is used unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import dropwhile, islice
from random import Random
from string import Template
from typing import Any

from jinja2 import TemplateError

from memorag_pipeline.errors import MemoragError
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.chat import HOLE, ChatTokenizer
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.training.loss import IGNORED
from memorag_pipeline.training.packing import TOO_SHORT, PackedSequence, sequence_of
from memorag_pipeline.training.readers import HELD_OUT, Record, UnusableError, context_id, is_held_out, text_of
from memorag_pipeline.words import words_of

# The kinds that jobs ask for as clues; `summarize` is asked by none of them, and has its prompt here.
_CLUES = {"recall": "spans", "rewrite": "surrogates", "answer": "draft"}
_SUMMARIZE = {
    "en": "Summarize what the text above says about this question in one paragraph.\nQuestion: $question",
    "zh": "请用一段话概括上文中与下面问题有关的内容。\n问题：$question",  # noqa: RUF001
}
_LINES = ("recall", "rewrite")  # a list is written with an item on each line; of a list of another kind the first is it
_ROLES = ("system", "user", "assistant")
_BYTES = 6  # characters of a context for each available token: more than a token has in running text
_MARGIN = 2  # tokens around a place in a text that may differ if the text is tokenized only up to there
_PLACES, _AROUND = 50, 200  # how many places of an output are compared, and by how many characters around them


@dataclass(frozen=True)
class Instructions:
    """Makes sequences of records. `random` decides where the output is within the kept part of a context."""

    spec: TrainingSpec
    formats: Mapping[Language, StreamFormat]
    contexts: Mapping[str, str]
    random: Random

    def sequence(self, record: Record) -> PackedSequence:
        """The sequence of a record. Raises UnusableError."""
        turns = record.fields.get("conversations")
        if turns is None:
            token_ids, labels = self._instruction(record.fields)
        else:
            token_ids, labels = _conversation(turns, self.formats[self.spec.language].tokenizer)
        length = self.spec.schedule.sequence_tokens
        if len(token_ids) > length:
            raise UnusableError("longer than a sequence")
        if len(token_ids) < 2 * self.spec.window:
            raise UnusableError(TOO_SHORT)
        return sequence_of(token_ids, labels, length, token_ids[-1], record.place)

    def _instruction(self, fields: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Tokens and labels."""
        kind = text_of(fields, "kind", "instruction_kind")
        if kind not in (*_CLUES, "summarize"):
            raise UnusableError("unknown kind")
        question, items = text_of(fields, "question"), _items(fields.get("output"))
        items = items if kind in _LINES else items[:1]
        context = self._context(fields)
        language = _language(fields.get("language"), self.spec.language)
        stream = self.formats[language]
        tokenizer = stream.tokenizer
        suffix, reply = stream.suffix(_prompt(kind, question, language)), _reply(kind, items, tokenizer)
        free = self.spec.schedule.sequence_tokens - len(stream.opening) - len(suffix)
        while kind == "recall" and len(items) > 1 and 2 * len(reply) > free:  # it occurs in the context a second time
            items = items[:-1]
            reply = _reply(kind, items, tokenizer)
        room = free - len(reply)
        if room < self.spec.window:
            raise UnusableError("the output leaves no window for the context")
        part = self._part(context, items, question, room, tokenizer)
        if kind == "recall":
            said = tokenizer.text(part)
            items = [item for item in items if item not in context or _as_shown(item, tokenizer) in said]
            if not items:
                raise UnusableError("no room for the sentences to be quoted")
            reply = _reply(kind, items, tokenizer)
        before = [*stream.opening, *part, *suffix]
        return [*before, *reply], [*[IGNORED] * len(before), *reply]

    def _context(self, fields: Mapping[str, Any]) -> str:
        if fields.get("context") is not None:
            context = text_of(fields, "context")
        else:
            name = context_id({"context_id": fields.get("context_id")})
            if name not in self.contexts:
                raise UnusableError("unknown context_id")
            context = self.contexts[name]
        if is_held_out(context, self.spec.data.held_out_percent):
            raise UnusableError(HELD_OUT)
        return f"{context}\n\n"

    def _part(self, context: str, items: list[str], question: str, room: int, tokenizer: ChatTokenizer) -> list[int]:
        """At most `room` tokens of a context: with the items that it holds, as far as they fit, or from its start."""
        places = [place for item in items if (place := _place(context, item, question)) is not None]
        start, end = places[0] if places else (0, 0)
        reach = _BYTES * room * len(context) // len(context.encode())
        for low, high in places[1:]:
            low, high = min(low, start), max(high, end)
            if high - low <= reach and len(tokenizer.plain(context[low:high])) + 2 * _MARGIN <= room:
                start, end = low, high
        # No more is tokenized than may be kept: a context can be a book.
        cut = max(0, start - reach)
        context, start, end = context[cut : end + reach], start - cut, end - cut
        token_ids = tokenizer.plain(context)
        spare = len(token_ids) - room
        if spare <= 0 or not places:
            return token_ids[:room]
        first = len(tokenizer.plain(context[:start]))
        latest = min(spare, max(0, first - _MARGIN))
        earliest = first + len(tokenizer.plain(context[start:end])) + _MARGIN - room
        offset = self.random.randint(min(latest, max(0, earliest)), latest)
        return token_ids[offset : offset + room]


def _conversation(turns: Any, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """Tokens and labels of a conversation from its first user turn on: everything that the assistant says is
    labelled."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and turn.get("role") in _ROLES for turn in turns):
        raise UnusableError("conversations is not a list of turns with role and content")
    turns = list(dropwhile(lambda turn: turn["role"] != "user", turns))
    if not any(turn["role"] == "assistant" for turn in turns):
        raise UnusableError("a conversation without a reply")
    contents = [text_of(turn, "content") for turn in turns]
    try:
        first, *pieces = tokenizer.frame([{"role": turn["role"], "content": HOLE} for turn in turns], reply=False)
    except (MemoragError, TemplateError):
        raise UnusableError("turns that the chat template refuses") from None
    token_ids, labels = list(first), [IGNORED] * len(first)
    for turn, content, piece in zip(turns, contents, pieces, strict=True):
        said, replied = tokenizer.plain(content), turn["role"] == "assistant"
        ending = 1 if replied and piece[:1] == [tokenizer.turn_end] else 0
        token_ids += [*said, *piece]
        labels += [*(said if replied else [IGNORED] * len(said)), *piece[:ending], *[IGNORED] * (len(piece) - ending)]
    return token_ids, labels


def _items(output: Any) -> list[str]:
    """An output as a list of texts."""
    items = output if isinstance(output, list) else [output]
    if not items:
        raise UnusableError("no output")
    return [text_of({"output": item}, "output") for item in items]


def _reply(kind: str, items: list[str], tokenizer: ChatTokenizer) -> list[int]:
    """Tokens of what the model is to say: an item on each line, as clues are read; then the end of its turn."""
    text = "\n".join(" ".join(item.split()) for item in items) if kind in _LINES else items[0]
    return [*tokenizer.plain(text), *([] if tokenizer.turn_end is None else [tokenizer.turn_end])]


def _prompt(kind: str, question: str, language: Language) -> str:
    if kind == "summarize":
        return Template(_SUMMARIZE[language]).substitute(question=question)
    return load_prompts(language).recall(_CLUES[kind], question)


def _language(code: Any, otherwise: Language) -> Language:
    """The language of the prompt for a record whose language is `code`, such as zh-Hant."""
    known: tuple[Language, ...] = ("en", "zh")
    return next((language for language in known if str(code).lower().startswith(language)), otherwise)


def _place(context: str, item: str, question: str) -> tuple[int, int] | None:
    """Where a context says an item; if in several places, where most words of the question are around it."""
    asked = _words(question)

    def shared(start: int) -> int:
        return len(asked & _words(context[max(0, start - _AROUND) : start + len(item) + _AROUND]))

    starts = [match.start() for match in islice(re.finditer(re.escape(item), context), _PLACES)]
    if not starts:
        return None
    start = max(starts, key=shared)
    return start, start + len(item)


def _words(text: str) -> set[str]:
    return set(words_of(text))


def _as_shown(text: str, tokenizer: ChatTokenizer) -> str:
    """A text as it comes back from its tokens."""
    return tokenizer.text(tokenizer.plain(text)).strip()
