"""Self-study: questions that a generator asks about passages of a corpus, as instructions to train on.

In:  documents and passages of a version, a generator.
Out: records {context, kind, question, output, language}: `recall`, the sentence of the passage that contains the
     answer, and `answer`, what the generator answers from only the passage. The context is the passage's document,
     with its neighbours if it is short, as in a shard.
Wrong: a passage without a usable question is left out and counted under the reason.

(MemoRAG, arXiv 2409.05591, trains its memory on data that a larger model wrote; here it is the generator of the spec,
on the corpus itself.)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from memorag_pipeline.generators.interface import Generator, Reply
from memorag_pipeline.progress import track
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.prompts.fence import fence_passages
from memorag_pipeline.prompts.message import Message
from memorag_pipeline.specs.values import Language
from memorag_pipeline.words import sentences_of, words_of

_ASK = {
    "en": "{passages}\n\nWrite one short question that this passage answers. Write nothing but the question.",
    "zh": "{passages}\n\n请写出一个能用这段文字回答的简短问题，只写问题本身。",  # noqa: RUF001
}
_LEAST_WORDS = 4
_AT_ONCE = 32


def choose_passages(chunks: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[Mapping[str, Any]]:
    """`count` chunks, from as many documents as possible, in a random order."""
    draw, by_document = Random(f"self-study {seed}"), dict[str, list[Mapping[str, Any]]]()
    for chunk in chunks:
        by_document.setdefault(chunk["document_id"], []).append(chunk)
    waiting = list(by_document.values())
    for group in waiting:
        draw.shuffle(group)
    draw.shuffle(waiting)
    chosen = list[Mapping[str, Any]]()
    while waiting and len(chosen) < count:
        chosen += [group.pop() for group in waiting[: count - len(chosen)]]
        waiting = [group for group in waiting if group]
    return chosen


def study(
    passages: Sequence[Mapping[str, Any]],
    documents: Mapping[str, str],
    generator: Generator,
    language: Language,
    skipped: Counter[str],
    least_characters: int = 0,
) -> Iterator[dict[str, Any]]:
    """Records about `passages` (rows of chunks); `documents` are the texts that they are from, by document_id.

    A context has at least `least_characters`, if all documents together have.
    """
    prompts = load_prompts(language)
    texts, places = list(documents.values()), {name: place for place, name in enumerate(documents)}
    with track("passages studied", len(passages), "passages") as bar:
        for start in range(0, len(passages), _AT_ONCE):
            some = passages[start : start + _AT_ONCE]
            asked = list[tuple[Mapping[str, Any], str]]()
            for passage, reply in zip(some, generator.reply([_ask(each, language) for each in some]), strict=True):
                problem, question = _question(reply)
                if problem:
                    skipped[f"self-study: {problem}"] += 1
                else:
                    asked.append((passage, question))
            answers = generator.reply([prompts.answer(question, [passage["text"]]) for passage, question in asked])
            for (passage, question), answer in zip(asked, answers, strict=True):
                said = _said(passage["text"], f"{question} {answer.text}")
                if answer.error or not answer.text or not said:
                    skipped["self-study: no answer"] += 1
                    continue
                context = _context(texts, places[passage["document_id"]], least_characters)
                common = {"context": context, "question": question, "language": language}
                yield {**common, "kind": "recall", "output": said}
                yield {**common, "kind": "answer", "output": answer.text}
            bar.advance(len(some))


def lines(records: Iterator[dict[str, Any]]) -> bytes:
    """Records as JSONL."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def _context(documents: Sequence[str], place: int, least_characters: int) -> str:
    """The document at `place` with documents after and before it, alternately, until they are long enough; in their
    order."""
    first, end, length = place, place + 1, len(documents[place])
    while length < least_characters and (first > 0 or end < len(documents)):
        behind = end < len(documents) and (first == 0 or end - place <= place - first + 1)
        length += len(documents[end if behind else first - 1])
        first, end = (first, end + 1) if behind else (first - 1, end)
    return "\n\n".join(documents[first:end])


def _ask(passage: Mapping[str, Any], language: Language) -> list[Message]:
    return [{"role": "user", "content": _ASK[language].format(passages=fence_passages([passage["text"]]))}]


def _question(reply: Reply) -> tuple[str, str]:
    """What is wrong with a reply that should be a question, if anything; and the question."""
    if reply.error:
        return "the generator failed", ""
    first = next((line.strip() for line in reply.text.splitlines() if line.strip()), "")
    if not first.endswith(("?", "？")):  # noqa: RUF001
        return "no question", ""
    return ("", first) if len(_words(first)) >= _LEAST_WORDS else ("too short a question", "")


def _said(passage: str, wanted: str) -> list[str]:
    """The sentence of a passage with the most words of its question and answer."""
    words = _words(wanted)
    sentences = [sentence.strip() for sentence in sentences_of(passage)]
    sentences = [sentence for sentence in sentences if len(_words(sentence)) >= _LEAST_WORDS]
    best = max(sentences, key=lambda sentence: len(_words(sentence) & words), default="")
    return [best] if _words(best) & words else []


def _words(text: str) -> set[str]:
    return set(words_of(text))
