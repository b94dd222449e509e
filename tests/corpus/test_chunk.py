"""Chunks: exact offsets, bounded tokens, ids that survive edits elsewhere."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.corpus.chunk import Chunk, Chunker
from memorag_pipeline.corpus.front_matter import front_matter
from memorag_pipeline.corpus.headed_blocks import whole_table
from memorag_pipeline.corpus.headings import markdown_headings, rst_headings
from memorag_pipeline.digests import text_digest
from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.models.references import ResolvedModel, resolve
from memorag_pipeline.models.tokens import TokenCounter, token_counter
from memorag_pipeline.specs.source import ChunkingSpec, ShardingSpec

TEXT = topics["strings"]
CAPACITY = 100


@pytest.fixture(scope="module")
def embedding() -> TokenCounter:
    return token_counter(resolve("package:all-minilm-l6-v2"))


@pytest.fixture(scope="module")
def memory() -> TokenCounter:
    return token_counter(resolve("package:smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def chunker(embedding: TokenCounter, memory: TokenCounter) -> Chunker:
    return Chunker(ChunkingSpec(max_tokens=CAPACITY), ShardingSpec(), embedding, memory, CAPACITY)


def require_exact(chunks: list[Chunk], text: str, embedding: TokenCounter) -> None:
    """Offsets, tokens and digests are right, and nothing but white space and marks is outside of the chunks."""
    for chunk in chunks:
        assert chunk.text == chunk.header + text[chunk.start : chunk.end]
        assert chunk.header in text[: chunk.start]
        assert chunk.tokens == embedding.count(chunk.text)
        assert chunk.digest == text_digest(chunk.text)
    covered = [0, *(place for chunk in chunks for place in (chunk.start, chunk.end)), len(text)]
    assert covered == sorted(covered)
    assert not "".join(text[end:start] for end, start in list(pairwise(covered))[::2]).strip(" \n\t#-`|.=~+*_:>")
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


@pytest.mark.parametrize("markdown", [False, True])
def test_chunks_cover_the_text_within_the_limit(chunker: Chunker, embedding: TokenCounter, markdown: bool) -> None:
    chunks = chunker.cut("d", TEXT, markdown)
    require_exact(chunks, TEXT, embedding)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY
    assert len(chunks) < 3 * embedding.count(TEXT) / CAPACITY


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab .\n#-`é中🙂\u200d\t|"), min_size=1, max_size=600), st.booleans())
def test_any_text_is_covered(embedding: TokenCounter, memory: TokenCounter, text: str, markdown: bool) -> None:
    narrow = Chunker(ChunkingSpec(max_tokens=20), ShardingSpec(), embedding, memory, 20)
    chunks = narrow.cut("d", text, markdown, markdown_headings(text) if markdown else ())
    if not front_matter(text)[1]:
        require_exact(chunks, text, embedding)
    assert bool(chunks) == bool(text.strip()) and all(chunk.tokens <= 20 for chunk in chunks)


def test_an_edit_changes_the_ids_of_few_chunks(chunker: Chunker) -> None:
    old = chunker.cut("d", TEXT, False)
    middle = TEXT.index("\n\n", len(TEXT) // 2)
    new = chunker.cut("d", TEXT[:middle] + " One more sentence." + TEXT[middle:], False)
    gone = {chunk.chunk_id for chunk in old} - {chunk.chunk_id for chunk in new}
    assert 1 <= len(gone) <= 3


def test_equal_passages_have_ids_of_their_own(chunker: Chunker) -> None:
    passage = "The same words again, and again. " * 10
    chunks = chunker.cut("d", f"{passage}\n\n{passage}\n\n{passage}", False)
    assert len({chunk.digest for chunk in chunks}) < len(chunks) == len({chunk.chunk_id for chunk in chunks})
    assert chunks[0].chunk_id != chunker.cut("other", passage, False)[0].chunk_id


def test_overlap(embedding: TokenCounter, memory: TokenCounter) -> None:
    spec = ChunkingSpec(max_tokens=CAPACITY, overlap_tokens=30)
    chunks = Chunker(spec, ShardingSpec(), embedding, memory, CAPACITY).cut("d", TEXT, False)
    assert any(left.end > right.start for left, right in pairwise(chunks))
    assert all(TEXT[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY


def test_a_run_without_spaces_is_cut_though_it_is_one_unknown_token(
    chunker: Chunker, embedding: TokenCounter, memory: TokenCounter
) -> None:
    text = "".join(random.Random(1).choices("ABCDEFabcdef0123456789", k=20_000))
    assert embedding.count(text) == 1
    chunks = chunker.cut("d", f"before\n{text}\nafter", False)
    assert max(memory.count(chunk.text) for chunk in chunks) <= 4 * CAPACITY
    assert "".join(chunk.text for chunk in chunks).replace("before", "").replace("after", "").strip() == text


def test_a_long_line_takes_linear_time(chunker: Chunker, embedding: TokenCounter) -> None:
    seconds = []
    for words in (6_000, 30_000):
        text = "the quick brown fox jumps " * (words // 5)
        started = time.process_time()
        chunks = chunker.cut("d", text, False)
        seconds.append(time.process_time() - started)
        assert sum(chunk.tokens for chunk in chunks) == embedding.count(text)
    assert seconds[1] < 12 * seconds[0]


def test_a_long_markdown_text_is_cut_at_its_headings(chunker: Chunker, embedding: TokenCounter) -> None:
    text = "".join(f"# Section {i}\n\n```\n# code {i}\n\n```\n\n{'Some words. ' * 900}\n\n" for i in range(14))
    chunks = chunker.cut("d", text, True, markdown_headings(text))
    require_exact(chunks, text, embedding)
    starts = {chunk.start for chunk in chunks}
    assert all(heading.start in starts for heading in markdown_headings(text))


_PARAGRAPH = "Ships that enter the harbour by night wait for the pilot at the outer buoy. "


def headings_and_chunks(chunker: Chunker, text: str) -> tuple[list[str], list[Chunk]]:
    """The lines of headings, and the chunks of a Markdown text."""
    headings = markdown_headings(text)
    return [text[each.start :].split("\n")[0] for each in headings], chunker.cut("d", text, True, headings)


@pytest.mark.parametrize("sentences", range(1, 30, 4))
@pytest.mark.parametrize("body", [_PARAGRAPH, "| Port | Fee of a ship in crowns |\n|---|---|\n", "```mermaid\n"])
def test_a_heading_is_with_its_text(chunker: Chunker, embedding: TokenCounter, sentences: int, body: str) -> None:
    row = {"|": "| Harbour | 37 crowns a night |\n", "`": "pilot --> buoy\n"}.get(body[0], _PARAGRAPH)
    end = "```\n" if body[0] == "`" else ""
    sections = [
        f"## Reporting, for those who come in {number}\n\n### By night\n\n{body}{row * sentences}{end}\n"
        for number in range(6)
    ]
    text = f"# Harbour\n\n{_PARAGRAPH * 3}\n\n" + "".join(sections)
    lines, chunks = headings_and_chunks(chunker, text)
    require_exact(chunks, text, embedding)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY
    for chunk in chunks:
        assert chunk.text.strip().split("\n")[-1] not in lines
        assert chunk.tokens >= 20, chunk.text


def test_titles_of_restructured_text_are_with_their_text(chunker: Chunker, embedding: TokenCounter) -> None:
    text = "".join(f"Title {mark * 2}\n{mark * 9}\n\n{_PARAGRAPH * 5}\n\n" for mark in "~-=^" * 3)
    chunks = chunker.cut("d", text, False, rst_headings(text))
    require_exact(chunks, text, embedding)
    assert all(_PARAGRAPH[:40] in chunk.text for chunk in chunks)
    assert sum("Title" in chunk.text for chunk in chunks) == sum(chunk.text.startswith("Title") for chunk in chunks)


def test_a_document_of_headings_alone_is_kept(chunker: Chunker) -> None:
    assert [chunk.text for chunk in chunker.cut("d", "# One\n\n## Two\n", True, markdown_headings("# One\n\n## Two\n"))]


def test_front_matter_and_lone_marks_are_no_passages(chunker: Chunker) -> None:
    matter = "---\ntitle: Harbour\nweight: 40\n---\n"
    text = f"{matter}\n{_PARAGRAPH * 5}\n\n---\n\n{_PARAGRAPH * 5}\n\n```mermaid\n{'a --> b' * 90}\n```\n"
    chunks = chunker.cut("d", text, True)
    assert all(chunk.start >= len(matter) for chunk in chunks)
    assert not {chunk.text.strip() for chunk in chunks} & {"---", "```mermaid", "```"}
    assert [chunk.text for chunk in chunker.cut("d", matter, True)] != []


@pytest.mark.parametrize("least", [0, 24])
def test_a_small_chunk_is_joined_with_its_neighbor(embedding: TokenCounter, memory: TokenCounter, least: int) -> None:
    long = f"{_PARAGRAPH * 5}Sound the horn when the fog is thick."
    text = "\n\n".join([long, "Mind the tide when you leave.", long, "Pay at once at the office."])
    spec = ChunkingSpec(max_tokens=CAPACITY, min_tokens=least)
    chunks = Chunker(spec, ShardingSpec(), embedding, memory, CAPACITY).cut("d", text, False)
    require_exact(chunks, text, embedding)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY
    assert (min(chunk.tokens for chunk in chunks) >= 24) == (least == 24)


def test_a_model_without_a_fast_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"some/model: no tokenizer\.json"):
        TokenCounter(ResolvedModel("some/model", None, tmp_path, "0", "0"))


_HEADER = "| Port of call | Fee in crowns |\n|---|---:|\n"
_TABLE = _HEADER + "".join(f"| Harbour number {number} | {number * 37} |\n" for number in range(60))
_CODE = "```python title=fees\n" + "".join(f"    fee_{number} = pay({number})\n" for number in range(80)) + "```\n"


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize("overlap", [0, 20])
@pytest.mark.parametrize(
    "block, header, row", [(_TABLE, _HEADER, "| Harbour"), (_CODE, "```python title=fees\n", "    fee_")]
)
def test_rows_carry_their_header(
    embedding: TokenCounter, memory: TokenCounter, markdown: bool, overlap: int, block: str, header: str, row: str
) -> None:
    spec = ChunkingSpec(max_tokens=CAPACITY, overlap_tokens=overlap)
    text = f"# Fees\n\nWhat is paid in each harbour.\n\n{block}\nWords behind it. {'More words. ' * 60}\n\n{block}"
    chunks = Chunker(spec, ShardingSpec(), embedding, memory, CAPACITY).cut("d", text, markdown)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY
    with_rows = [chunk for chunk in chunks if row in chunk.text]
    assert len(with_rows) > 8 and all(header in chunk.text for chunk in with_rows)
    for chunk in chunks:
        assert chunk.text == chunk.header + text[chunk.start : chunk.end]
        assert header.startswith(chunk.header)
        lines = text[chunk.start : chunk.end].split("\n")
        assert all(line in text.split("\n") for line in lines if line.startswith(row))  # rows are whole
    if not overlap:
        require_exact(chunks, text, embedding)


def test_equal_rows_under_other_headers_are_other_texts(chunker: Chunker) -> None:
    rows = "".join(f"| {number} | {number * 3} |\n" for number in range(99))
    first, second = (chunker.cut("d", f"| {name} | n |\n|---|---|\n{rows}", True) for name in ("Fee", "Depth"))
    assert not {chunk.digest for chunk in first} & {chunk.digest for chunk in second}


def test_a_header_longer_than_half_a_chunk_is_not_carried(chunker: Chunker, embedding: TokenCounter) -> None:
    names = " | ".join(f"column number {number}" for number in range(40))
    text = f"| {names} |\n|{'---|' * 40}\n" + "".join(f"|{f' {row} |' * 40}\n" for row in range(9))
    chunks = chunker.cut("d", text, True)
    require_exact(chunks, text, embedding)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY and not any(chunk.header for chunk in chunks)


def test_rows_of_a_text_that_is_one_table_carry_the_line_of_names(chunker: Chunker, embedding: TokenCounter) -> None:
    text = "sep=;\nid;port;fee\n" + "".join(f"{row};Harbour number {row};{row * 37}\n" for row in range(5_400))
    chunks = chunker.cut("d", text, False, blocks=[whole_table(text)])
    require_exact(chunks, text, embedding)
    assert max(chunk.tokens for chunk in chunks) <= CAPACITY
    assert {chunk.header for chunk in chunks[1:]} == {"sep=;\nid;port;fee\n"}


def test_a_block_may_begin_with_a_line_that_has_no_tokens(chunker: Chunker, embedding: TokenCounter) -> None:
    text = "some words\n\n```py\n\x00\n" + "a line of code, and its end\n" * 40 + "```\n"
    chunks = chunker.cut("d", text, True)
    require_exact(chunks, text, embedding)
    assert len(chunks) > 2 and all(chunk.header == "```py\n" for chunk in chunks[2:])
