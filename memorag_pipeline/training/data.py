"""What a memory is trained on: sequences of texts and of instructions; and the texts that are held out of it.

In:  the files and the corpus of a training spec, a model's tokenizer.
Out: `PackedSequence`s of one length, the same ones for the same seed and epoch; texts.
Wrong: a record that cannot be used is left out and counted under its reason; a file that cannot be read, or files
       without anything usable, are a `TrainingError`.

Texts are packed, so that short ones are used as well. An instruction is a separate sequence, and left out if it is
shorter than two windows, since no memory is asked then. Two documents of a hundred, by their digest, are held out: they
are never trained on, neither as texts nor as contexts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random

from memorag_pipeline.errors import TrainingError
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.training.instructions import Instructions
from memorag_pipeline.training.packing import PackedSequence, pack, shuffled
from memorag_pipeline.training.readers import (
    HELD_OUT,
    Skipped,
    UnusableError,
    is_held_out,
    read_contexts,
    read_records,
    skip,
    text_sources,
)

__all__ = ["PackedSequence", "Skipped", "held_out_texts", "instruction_sequences", "text_sequences"]

_COLUMNS = ("context", "context_id", "kind", "instruction_kind", "question", "output", "language", "conversations")


def text_sequences(
    spec: TrainingSpec, tokenizer: ChatTokenizer, end_id: int, skipped: Skipped, epoch: int
) -> Iterator[PackedSequence]:
    """All texts once, each ended by `end_id`, packed; files and sequences in the epoch's own order.

    Raises TrainingError.
    """
    random = Random(f"texts {spec.schedule.seed} {epoch}")
    sources = text_sources(spec.data, skipped)
    random.shuffle(sources)

    def documents() -> Iterator[tuple[str, list[int]]]:
        for source in sources:
            for text in source():
                if is_held_out(text.text, spec.data.held_out_percent):
                    skipped[HELD_OUT] += 1
                else:
                    yield text.source, [*tokenizer.plain(text.text), end_id]

    packed = pack(documents(), spec.schedule.sequence_tokens, 2 * spec.window, end_id, skipped)
    return _at_least_one(shuffled(packed, random), "data.text and data.corpus", skipped)


def instruction_sequences(
    spec: TrainingSpec, formats: Mapping[Language, StreamFormat], skipped: Skipped, epoch: int
) -> Iterator[PackedSequence]:
    """All instructions once, each with its context; files and sequences in the epoch's own order.

    `formats` are the model's, one for each language. Raises TrainingError.
    """
    random = Random(f"instructions {spec.schedule.seed} {epoch}")
    files = list(spec.data.instructions)
    random.shuffle(files)

    def sequences() -> Iterator[PackedSequence]:
        contexts = read_contexts(spec.data, skipped)
        instructions = Instructions(spec, formats, contexts, Random(f"contexts {spec.schedule.seed} {epoch}"))
        for uri in files:
            for record in read_records(uri, spec.data, skipped, _COLUMNS, ("output", "conversations")):
                try:
                    sequence = instructions.sequence(record)
                except UnusableError as problem:
                    skip(skipped, str(problem), record.place)
                else:
                    yield sequence

    return _at_least_one(shuffled(sequences(), random), "data.instructions", skipped)


def held_out_texts(spec: TrainingSpec, tokenizer: ChatTokenizer, count: int, min_tokens: int) -> list[str]:
    """The first `count` held-out texts of at least `min_tokens`, in the order of the spec; fewer if there are fewer.

    Where there are not enough, shorter ones follow that are joined until they are as long. Raises TrainingError if
    there is none.
    """
    found: dict[str, None] = {}
    shorter: dict[str, int] = {}
    read = held_out = 0
    for source in text_sources(spec.data, Skipped()):
        for text in source():
            read += 1
            if not is_held_out(text.text, spec.data.held_out_percent):
                continue
            held_out += 1
            tokens = len(tokenizer.plain(text.text))
            if tokens >= min_tokens:
                found[text.text] = None
            else:
                shorter[text.text] = tokens
            if len(found) == count:
                return list(found)
    found |= dict.fromkeys(_joined(shorter, min_tokens))
    if not found:
        raise TrainingError(
            f"data.text and data.corpus: of {read:,} texts {held_out:,} are held out for the evaluation, which have"
            f" less than {min_tokens:,} tokens in all; add texts, or raise data.held_out_percent"
        )
    return list(found)[:count]


def _joined(texts: Mapping[str, int], min_tokens: int) -> Iterator[str]:
    """Texts, given with their tokens, one after the other until they have `min_tokens`."""
    waiting, tokens = list[str](), 0
    for text, length in texts.items():
        waiting.append(text)
        tokens += length
        if tokens >= min_tokens:
            yield "\n\n".join(waiting)
            waiting, tokens = [], 0


def _at_least_one(sequences: Iterable[PackedSequence], where: str, skipped: Skipped) -> Iterator[PackedSequence]:
    """`sequences`, or an error that says why there is none."""
    empty = True
    for sequence in sequences:
        empty = False
        yield sequence
    if empty:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in skipped.most_common()) or "nothing"
        raise TrainingError(f"{where}: no sequence can be made of what was read; left out: {reasons}")
