"""Training data: every form of file, records left out by reason, packing, and instructions as they are prompted."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorag_pipeline.errors import NotFoundError, TrainingError
from memorag_pipeline.memory.stream import StreamFormat
from memorag_pipeline.models.chat import ChatTokenizer
from memorag_pipeline.models.references import resolve
from memorag_pipeline.prompts.answer_prompts import load_prompts
from memorag_pipeline.schemas import DOCUMENTS
from memorag_pipeline.specs.training import TrainingSpec
from memorag_pipeline.specs.values import Language
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.training.data import held_out_texts, instruction_sequences, text_sequences
from memorag_pipeline.training.loss import IGNORED
from memorag_pipeline.training.packing import TOO_SHORT, PackedSequence, pack, shuffled
from memorag_pipeline.training.readers import HELD_OUT, is_held_out
from tests.conftest import REPOSITORY
from tests.memory.conftest import SMOLLM2
from tests.storage.conftest import manifest_of

SHARED = REPOSITORY.parent / "shared" / "data" / "train"
END, WINDOW, LENGTH = 0, 32, 256
QUESTION = "Where does the red ship land?"


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer(resolve(SMOLLM2).folder)


@pytest.fixture(scope="module")
def formats(tokenizer: ChatTokenizer) -> dict[Language, StreamFormat]:
    return {"en": StreamFormat.of(tokenizer, "en"), "zh": StreamFormat.of(tokenizer, "zh")}


def spec_of(folder: Path, *, length: int = LENGTH, seed: int = 0, language: str = "en", **data: Any) -> TrainingSpec:
    files = {name: [str(item) for item in value] if isinstance(value, list) else value for name, value in data.items()}
    return TrainingSpec.model_validate(
        {
            "adapter": "test",
            "language": language,
            "store": {"uri": str(folder / "store")},
            "model": SMOLLM2,
            "data": {"text": ["unread.jsonl"] if "corpus" not in data else [], **files},
            "window": WINDOW,
            "schedule": {"sequence_tokens": length, "batch_tokens": length, "seed": seed},
        }
    )


def write(path: Path, records: Sequence[Any]) -> Path:
    """A file of records in the format of its name; bytes are raw lines."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
        return path
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in records)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return path


def documents(count: int, words: int = 90, held_out: bool = False) -> list[str]:
    """Texts that are held out, or that are not."""

    def text(number: int) -> str:
        random = Random(number)
        return " ".join(f"item{random.randrange(100)}" for _ in range(words))

    found = (text(number) for number in itertools.count())
    return list(itertools.islice((one for one in found if is_held_out(one, 2) is held_out), count))


def parts(text: str) -> list[str]:
    """Forty characters each."""
    return [text[start : start + 40] for start in range(0, len(text) - 40, 40)]


def lines_of(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def texts_of(
    spec: TrainingSpec, tokenizer: ChatTokenizer, epoch: int = 0, skipped: Counter[str] | None = None
) -> list[PackedSequence]:
    return list(text_sequences(spec, tokenizer, END, Counter() if skipped is None else skipped, epoch))


def tokens_of(sequences: Sequence[PackedSequence]) -> list[list[int]]:
    return [sequence.token_ids.tolist() for sequence in sequences]


def labelled(sequence: PackedSequence) -> list[int]:
    """The labels that count; they are the tokens at their place."""
    kept = sequence.labels != IGNORED
    assert sequence.labels[kept].tolist() == sequence.token_ids[kept].tolist()
    return sequence.labels[kept].tolist()


class TestTexts:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
    def test_every_form_of_file_gives_all_texts(self, tmp_path: Path, tokenizer: ChatTokenizer, name: str) -> None:
        texts = documents(5, words=95)
        spec = spec_of(tmp_path, text=[write(tmp_path / name, lines_of(texts))])
        sequences = texts_of(spec, tokenizer)
        assert {len(sequence.token_ids) for sequence in sequences} == {LENGTH}
        found = sorted(token for sequence in sequences for token in sequence.token_ids.tolist() if token != END)
        assert found == sorted(token for text in texts for token in tokenizer.plain(text))
        assert {sequence.source.split(" and ")[0].rpartition(":")[0] for sequence in sequences} == {
            str(tmp_path / name)
        }

    def test_a_uri_and_a_file_whose_name_says_nothing(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        plain = write(tmp_path / "a.jsonl", lines_of(documents(4)))
        uri = f"memory://{tmp_path.name}/data"
        with fsspec.open(uri, "wb") as file:
            file.write(write(tmp_path / "a.jsonl.zst", lines_of(documents(4))).read_bytes())
        assert tokens_of(texts_of(spec_of(tmp_path, text=[uri]), tokenizer)) == tokens_of(
            texts_of(spec_of(tmp_path, text=[plain]), tokenizer)
        )

    def test_documents_of_the_newest_version_of_a_corpus(
        self, tmp_path: Path, tokenizer: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEMORAG_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "topics.yaml"
        path.write_text(
            "corpus: topics\nsource: {uris: [./docs]}\nstore: {uri: ./kb}\n"
            f"memory: {{kind: full, model: '{SMOLLM2}'}}\nembedding: {{model: 'package:all-minilm-l6-v2'}}\n",
            encoding="utf-8",
        )
        spec = spec_of(tmp_path, corpus=str(path))
        with pytest.raises(NotFoundError, match=r"topics\.yaml: .* holds no version"):
            texts_of(spec, tokenizer)
        store = CorpusStore(str(tmp_path / "kb" / "topics"))
        for number, text in enumerate(documents(2, words=200)):
            buffer = io.BytesIO()
            row = dict.fromkeys(DOCUMENTS.names, "") | {"headings": [], "sections": []}
            row |= {"source_size": 1, "characters": len(text), "tokens": 1}
            row |= {"uri": f"file:///{number}.md", "text": text}
            pq.write_table(pa.Table.from_pylist([row], schema=DOCUMENTS), buffer)
            store.versions.publish(manifest_of(store, documents=buffer.getvalue()), f"run-{number}")
        sequences = texts_of(spec, tokenizer)
        assert {sequence.source for sequence in sequences} == {"file:///1.md"}
        in_order = sorted(sequences, key=lambda sequence: END in sequence.token_ids.tolist())
        read = [token for sequence in in_order for token in sequence.token_ids.tolist()]
        assert read[: read.index(END)] == tokenizer.plain(documents(2, words=200)[1])

    def test_bad_records_are_counted_by_reason_and_the_others_stay(
        self, tmp_path: Path, tokenizer: ChatTokenizer, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = documents(3)
        bad = {
            "not JSON": [b'{"text": "cut', b"[" * 100_000],
            "not a JSON object": [b'["text"]', b"7"],
            "not UTF-8": [b'{"text": "\xff\xfe"}'],
            "no text": [{}, {"text": None}, {"body": "x"}],
            "text is not a string": [{"text": 5}, {"text": ["x"]}],
            "empty text": [{"text": ""}, {"text": " \n"}],
            "text is not valid Unicode": [b'{"text": "\\ud800 half"}'],
        }
        held_out = lines_of(documents(2, held_out=True))
        lines = [line for found in zip(lines_of(good), [b""] * 3, strict=True) for line in found]
        path = write(tmp_path / "a.jsonl", [*lines, *itertools.chain(*bad.values()), *held_out])
        skipped: Counter[str] = Counter()
        sequences = texts_of(spec_of(tmp_path, text=[path]), tokenizer, skipped=skipped)
        clean = write(tmp_path / "clean.jsonl", lines_of(good))
        assert tokens_of(sequences) == tokens_of(texts_of(spec_of(tmp_path, text=[clean]), tokenizer))
        rest = Counter(skipped)
        assert rest.pop(HELD_OUT) == 2
        rest.pop(TOO_SHORT, None)
        assert rest == {reason: len(found) for reason, found in bad.items()}
        texts_of(spec_of(tmp_path, text=[path]), tokenizer, skipped=Counter())  # as in a second epoch
        assert [message for message in caplog.messages if "no text" in message] == [
            f"{path}:12: left out: no text (others like it are only counted)"
        ]

    @pytest.mark.parametrize(
        ("name", "data", "problem"),
        [
            ("missing.jsonl", None, "no such file"),
            ("cut.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 900, mtime=0)[:-20], "cannot be read"),
            ("cut.zst", b"\x28\xb5\x2f\xfdnothing of the kind", "cannot be read"),
            ("cut.parquet", b"PAR1 and no more", "cannot be read"),
            ("columns.parquet", [{"body": "x", "id": 1}], "no column text; columns found: body, id"),
            ("empty.jsonl", b"", "data.text and data.corpus: no sequence .* left out: nothing"),
            ("bad.jsonl", b"{\n{", r"no sequence .* left out: not JSON \(2\)"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_named(
        self, tmp_path: Path, tokenizer: ChatTokenizer, name: str, data: Any, problem: str
    ) -> None:
        if isinstance(data, bytes):
            (tmp_path / name).write_bytes(data)
        elif data is not None:
            write(tmp_path / name, data)
        with pytest.raises(TrainingError, match=problem) as raised:
            texts_of(spec_of(tmp_path, text=[tmp_path / name]), tokenizer)
        assert "no sequence" in problem or str(tmp_path / name) in str(raised.value)

    def test_the_same_seed_and_epoch_give_the_same_sequences(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        texts = documents(12)
        files = [write(tmp_path / f"{n}.jsonl", lines_of(texts[n * 3 : n * 3 + 3])) for n in range(4)]
        spec = spec_of(tmp_path, text=files)
        first = tokens_of(texts_of(spec, tokenizer))
        assert tokens_of(texts_of(spec, tokenizer)) == first
        assert tokens_of(texts_of(spec, tokenizer, epoch=1)) != first
        assert tokens_of(texts_of(spec_of(tmp_path, text=files, seed=1), tokenizer)) != first

    def test_held_out_texts_are_never_trained_on(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        kept, trained = documents(4, held_out=True), documents(6)
        files = [
            write(tmp_path / "a.jsonl", lines_of([trained[0], kept[0], "short", *trained[1:4]])),
            write(tmp_path / "b.parquet", lines_of([kept[1], kept[0], *trained[4:], kept[2] + "\n", kept[3]])),
        ]
        spec = spec_of(tmp_path, text=files)
        assert held_out_texts(spec, tokenizer, 3, 50) == kept[:3]
        assert held_out_texts(spec, tokenizer, 9, 50) == kept
        told = " ".join(tokenizer.text(ids) for ids in tokens_of(texts_of(spec, tokenizer)))
        assert all(any(part in told for part in parts(text)) for text in trained)
        assert not any(part in told for text in kept for part in parts(text))
        length = max(len(tokenizer.plain(text)) for text in kept) + 1
        (joined,) = held_out_texts(spec, tokenizer, 1, length)
        assert joined.startswith(f"{kept[0]}\n\n{kept[1]}")
        assert len(tokenizer.plain(joined)) >= length
        with pytest.raises(TrainingError, match=r"of 12 texts 5 are held out .* less than 5,000 tokens in all"):
            held_out_texts(spec, tokenizer, 3, 5000)


class TestPacking:
    def test_a_long_document_gives_consecutive_pieces_and_rests_are_packed(self) -> None:
        skipped: Counter[str] = Counter()
        long, short, other = list(range(100, 125)), [1, 2, 3], [4, 5, 6, 7, 8]
        made = list(pack([("long", long), ("short", short), ("other", other)], 10, 2, END, skipped))
        assert tokens_of(made) == [
            list(range(100, 110)),
            list(range(110, 120)),
            [120, 121, 122, 123, 124, 1, 2, 3, 4, 5],
            [6, 7, 8, *[END] * 7],
        ]
        assert [sequence.labels.tolist() for sequence in made] == [
            list(range(100, 110)),
            list(range(110, 120)),
            [120, 121, 122, 123, 124, IGNORED, 2, 3, IGNORED, 5],
            [6, 7, 8, *[IGNORED] * 7],
        ]
        assert [sequence.source for sequence in made] == ["long", "long", "long and 2 more", "other"]
        assert not skipped

    def test_a_last_rest_shorter_than_two_windows_is_counted(self) -> None:
        skipped: Counter[str] = Counter()
        assert tokens_of(list(pack([("a", list(range(11)))], 10, 2, END, skipped))) == [list(range(10))]
        assert skipped == {TOO_SHORT: 1}
        assert tokens_of(list(pack([("a", list(range(10)))], 10, 2, END, skipped))) == [list(range(10))]
        assert skipped == {TOO_SHORT: 1}

    @pytest.mark.parametrize("buffer", [1, 7, 100])
    def test_shuffling_loses_nothing_and_holds_no_more_than_its_buffer(self, buffer: int) -> None:
        read = itertools.count()
        order = shuffled(itertools.islice(read, 50), Random(3), buffer)
        first = next(order)
        assert next(read) <= buffer + 2
        rest = list(order)
        again = list(shuffled(range(50), Random(3), buffer))
        assert sorted(again) == list(range(50))
        assert again != sorted(again) or buffer == 1
        assert again[0] == first and len(rest) == 49


@pytest.fixture
def make(tmp_path: Path, formats: dict[Language, StreamFormat]) -> Any:
    """Sequences of instruction records, with files of contexts as records."""

    def make(
        records: Sequence[Any],
        *,
        contexts: Sequence[Any] = (),
        epoch: int = 0,
        skipped: Counter[str] | None = None,
        name: str = "sft.jsonl",
        **settings: Any,
    ) -> list[PackedSequence]:
        files = [write(tmp_path / "contexts.jsonl.gz", contexts)] if contexts else []
        spec = spec_of(tmp_path, instructions=[write(tmp_path / name, records)], contexts=files, **settings)
        return list(instruction_sequences(spec, formats, Counter() if skipped is None else skipped, epoch))

    return make


def sentences(count: int, subject: str = "ship") -> list[str]:
    """Different sentences of some ten tokens."""
    return [f"On day {number} the {subject} {number * 7} sailed along the coast." for number in range(count)]


def instruction(**fields: Any) -> dict[str, Any]:
    base = {"context": " ".join(sentences(8)), "kind": "recall", "question": QUESTION, "output": sentences(8)[3]}
    return base | fields


class TestInstructions:
    @pytest.mark.parametrize(
        ("kind", "prompt"),
        [
            ("recall", load_prompts("en").recall("spans", QUESTION)),
            ("rewrite", load_prompts("en").recall("surrogates", QUESTION)),
            ("answer", load_prompts("en").recall("draft", QUESTION)),
            (
                "summarize",
                f"Summarize what the text above says about this question in one paragraph.\nQuestion: {QUESTION}",
            ),
        ],
    )
    def test_a_stream_is_what_the_pipeline_asks_and_labels_are_the_output(
        self, make: Any, formats: dict[Language, StreamFormat], kind: str, prompt: str
    ) -> None:
        stream = formats["en"]
        record = instruction(kind=kind)
        (sequence,) = make([record])
        output = [*stream.tokenizer.plain(record["output"]), stream.tokenizer.turn_end]
        before = [*stream.opening, *stream.tokenizer.plain(record["context"] + "\n\n"), *stream.suffix(prompt)]
        padding = LENGTH - len(before) - len(output)
        assert sequence.token_ids.tolist()[: LENGTH - padding] == [*before, *output]
        assert sequence.labels.tolist() == [*[IGNORED] * len(before), *output, *[IGNORED] * padding]

    @pytest.mark.parametrize(("code", "default"), [("zh-Hant", "en"), ("zh", "en"), (None, "zh")])
    def test_chinese_records_are_asked_in_chinese(
        self, make: Any, formats: dict[Language, StreamFormat], code: str | None, default: str
    ) -> None:
        stream, tokenizer = formats["zh"], formats["zh"].tokenizer
        quote = "自从其创建以来，大约被授予了6,300次以上。"  # noqa: RUF001
        record = instruction(
            context=f"海军十字勋章。{quote}",
            language=code,
            question="授予了多少次？",  # noqa: RUF001
            output=[quote],
        )
        (sequence,) = make([record], length=512, language=default)
        assert tuple(sequence.token_ids.tolist()[: len(stream.opening)]) == stream.opening
        assert load_prompts("zh").recall("spans", "授予了多少次？") in tokenizer.text(  # noqa: RUF001
            sequence.token_ids.tolist()
        )
        assert tokenizer.text(labelled(sequence)) == quote

    def test_a_list_has_an_item_on_each_line(self, make: Any, tokenizer: ChatTokenizer) -> None:
        said = sentences(8)
        (recall,) = make([instruction(output=[said[5], said[2]])])
        assert tokenizer.text(labelled(recall)) == f"{said[5]}\n{said[2]}"
        (rewrite,) = make([instruction(kind="rewrite", output=["Where is\nit?", "When?"])])
        assert tokenizer.text(labelled(rewrite)) == "Where is it?\nWhen?"
        (answer,) = make([instruction(kind="answer", output=["On the coast.", "At the coast."])])
        assert tokenizer.text(labelled(answer)) == "On the coast."

    @pytest.mark.parametrize("place", [0, 1, 150, 298, 299])
    def test_a_context_that_is_too_long_keeps_what_the_output_says(
        self, make: Any, tokenizer: ChatTokenizer, place: int
    ) -> None:
        said = sentences(300)
        offsets = set()
        for epoch in range(5):
            (sequence,) = make([instruction(context=" ".join(said), output=[said[place]])], epoch=epoch)
            token_ids = sequence.token_ids.tolist()
            assert len(token_ids) == LENGTH
            context = tokenizer.text(token_ids[: sequence.labels.ne(IGNORED).nonzero()[0].item()])
            assert said[place] in context
            assert tokenizer.text(labelled(sequence)) == said[place]
            offsets.add(context.index(said[place]))
        assert place in (0, 299) or len(offsets) > 1

    def test_quotes_from_what_is_cut_off_are_left_out(self, make: Any, tokenizer: ChatTokenizer) -> None:
        said = sentences(300)
        (sequence,) = make([instruction(context=" ".join(said), output=[said[150], said[10], said[152]])])
        assert tokenizer.text(labelled(sequence)) == f"{said[150]}\n{said[152]}"

    def test_as_many_quotes_are_asked_for_as_there_is_room_for_twice(self, make: Any, tokenizer: ChatTokenizer) -> None:
        said = sentences(300)
        (sequence,) = make([instruction(context=" ".join(said), output=said[100:140])])
        quoted = tokenizer.text(labelled(sequence)).splitlines()
        assert 2 < len(quoted) < 20 and quoted == said[100 : 100 + len(quoted)]
        context = tokenizer.text(sequence.token_ids.tolist()[: sequence.labels.ne(IGNORED).nonzero()[0].item()])
        assert all(quote in context for quote in quoted)

    def test_an_output_that_the_context_does_not_say_keeps_its_beginning(
        self, make: Any, formats: dict[Language, StreamFormat]
    ) -> None:
        stream = formats["en"]
        context = " ".join(sentences(300))
        (sequence,) = make([instruction(context=context, kind="answer", output="Nowhere at all.")])
        kept = sequence.token_ids.tolist()[len(stream.opening) :][:80]
        assert kept == stream.tokenizer.plain(context)[:80]
        assert len(labelled(sequence)) == len(stream.tokenizer.plain("Nowhere at all.")) + 1
        assert sequence.labels[-1] != IGNORED

    def test_of_several_places_the_one_nearest_to_the_question_is_kept(
        self, make: Any, tokenizer: ChatTokenizer
    ) -> None:
        said = sentences(300)
        said[200] = "The red ship was seen to land at Hull in the morning."
        said[3] = "A man from Hull sold fish."
        (sequence,) = make([instruction(kind="answer", context=" ".join(said), output="Hull")])
        assert said[200] in tokenizer.text(sequence.token_ids.tolist())

    def test_contexts_are_joined_by_id(self, make: Any, tokenizer: ChatTokenizer) -> None:
        said = sentences(16)
        contexts = [
            {"context_id": "a", "text": " ".join(said[:8])},
            {"id": 7, "context": " ".join(said[8:])},
            {"context_id": "a", "text": "Another one."},
            {"context_id": "b", "text": " "},
            {"text": "Without an id."},
        ]
        fields = {"context": None, "kind": None, "instruction_kind": "recall"}
        records = [
            instruction(context_id="a", output=[said[3]], **fields),
            instruction(context_id=7, output=[said[9]], **fields),
            instruction(context_id="b", **fields),
            instruction(context_id="c", **fields),
            instruction(**fields),
        ]
        skipped: Counter[str] = Counter()
        found = make(records, contexts=contexts, skipped=skipped)
        assert sorted(tokenizer.text(labelled(sequence)) for sequence in found) == sorted([said[3], said[9]])
        for sequence in found:
            assert tokenizer.text(sequence.token_ids.tolist()).count(tokenizer.text(labelled(sequence))) == 2
        assert skipped == {
            "contexts: context_id of an earlier context": 1,
            "contexts: empty text": 1,
            "contexts: no context_id": 1,
            "unknown context_id": 2,
            "no context_id": 1,
        }

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"output": None}, "no output"),
            ({"output": []}, "no output"),
            ({"output": " "}, "empty output"),
            ({"output": ["x", 3]}, "output is not a string"),
            ({"output": {"text": "x"}}, "output is not a string"),
            ({"question": None}, "no question"),
            ({"kind": None}, "no kind"),
            ({"kind": "translate"}, "unknown kind"),
            ({"context": ""}, "empty context"),
            ({"context": ["x"]}, "context is not a string"),
            ({"context": None}, "no context_id"),
            ({"output": "so on " * 200}, "the output leaves no window for the context"),
            ({"conversations": "hello"}, "conversations is not a list of turns with role and content"),
            ({"conversations": [{"from": "human"}]}, "conversations is not a list of turns with role and content"),
            ({"conversations": [{"role": "user", "content": "Hello"}]}, "a conversation without a reply"),
            ({"conversations": [{"role": "assistant", "content": "Hello"}]}, "a conversation without a reply"),
            (
                {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": 1}]},
                "content is not a string",
            ),
            (
                {"conversations": [{"role": "user", "content": "so on " * 900}, {"role": "assistant", "content": "x"}]},
                "longer than a sequence",
            ),
            (
                {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
                TOO_SHORT,
            ),
        ],
    )
    def test_a_record_that_cannot_be_used_is_counted(self, make: Any, change: dict[str, Any], reason: str) -> None:
        skipped: Counter[str] = Counter()
        (sequence,) = make([instruction(**change), instruction()], skipped=skipped)
        assert sequence.source.endswith("sft.jsonl:2")
        assert skipped == {reason: 1}

    def test_contexts_that_are_held_out_are_not_asked_about(self, make: Any) -> None:
        skipped: Counter[str] = Counter()
        make([instruction(context=documents(1, held_out=True)[0]), instruction()], skipped=skipped)
        assert skipped == {HELD_OUT: 1}

    def test_all_that_the_assistant_says_in_a_conversation_is_labelled(
        self, make: Any, tokenizer: ChatTokenizer
    ) -> None:
        said = " ".join(sentences(8))
        turns = [
            {"role": "assistant", "content": "Welcome."},
            {"role": "user", "content": f"{said}\n\n{QUESTION}"},
            {"role": "assistant", "content": "Nowhere."},
            {"role": "user", "content": "Never?"},
            {"role": "assistant", "content": "Never."},
        ]
        (sequence,) = make([{"conversations": turns}])
        end = tokenizer.turn_end
        assert labelled(sequence) == [*tokenizer.plain("Nowhere."), end, *tokenizer.plain("Never."), end]
        text = tokenizer.text(sequence.token_ids.tolist())
        assert "Welcome." not in text and f"{said}\n\n{QUESTION}" in text

    def test_parquet_and_lines_give_the_same(self, make: Any) -> None:
        said = sentences(8)
        records = [instruction(output=[said[n]]) for n in range(6)]
        assert tokens_of(make(records, name="a.parquet")) == tokens_of(make(records, name="a.jsonl.zst"))

    def test_the_same_seed_and_epoch_give_the_same_sequences(self, make: Any) -> None:
        said = sentences(300)
        records = [instruction(context=" ".join(said), output=[said[n]]) for n in range(0, 300, 30)]
        first = tokens_of(make(records))
        assert tokens_of(make(records)) == first
        assert sorted(tokens_of(make(records, epoch=1))) != sorted(first)
        assert tokens_of(make(records, seed=1)) != first

    def test_nothing_that_can_be_used_is_an_error(self, make: Any) -> None:
        with pytest.raises(TrainingError, match=r"data\.instructions: no sequence .* left out: unknown kind \(1\)"):
            make([instruction(kind="sing")])


@pytest.mark.skipif(not SHARED.exists(), reason=f"there is no {SHARED}")
class TestRealData:
    def test_texts(self, tmp_path: Path, tokenizer: ChatTokenizer) -> None:
        spec = spec_of(tmp_path, length=1024, text=sorted((SHARED / "text").glob("*.zst"))[-1:])
        skipped: Counter[str] = Counter()
        found = list(itertools.islice(text_sequences(spec, tokenizer, END, skipped, 0), 8))
        assert {len(sequence.token_ids) for sequence in found} == {1024}
        assert set(skipped) <= {HELD_OUT}
        held_out = held_out_texts(spec, tokenizer, 2, 2048)
        assert len(held_out) == 2 and all(is_held_out(text, 2) for text in held_out)

    def test_instructions(self, tmp_path: Path, formats: dict[Language, StreamFormat]) -> None:
        spec = spec_of(
            tmp_path,
            length=1024,
            instructions=[SHARED / "sft.jsonl.gz"],
            contexts=[SHARED / "sft_contexts.jsonl.gz"],
        )
        skipped: Counter[str] = Counter()
        found = list(itertools.islice(instruction_sequences(spec, formats, skipped, 0), 40))
        assert all(len(sequence.token_ids) == 1024 and labelled(sequence) for sequence in found)
        assert set(skipped) <= {
            HELD_OUT,
            "the output leaves no window for the context",
            "no room for the sentences to be quoted",
        }
