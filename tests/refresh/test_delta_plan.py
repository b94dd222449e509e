"""Delta plans: nothing is lost, memories are as fresh as promised, and the tokens read stay within the bound."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorag_pipeline.digests import text_digest
from memorag_pipeline.refresh.delta_plan import MOST_IDLE, plan_delta, stale_tokens
from memorag_pipeline.refresh.shard_plan import Bounds, Shard, plan_exact
from memorag_pipeline.refresh.shard_sections import ShardSection, section_columns

BOUNDS = Bounds(max_tokens=1000, min_tokens=100)
Corpus = dict[str, tuple[str, int]]


def sections_of(corpus: Corpus) -> list[ShardSection]:
    """One section for each document (URI -> text, tokens), in order of URI."""
    return [
        ShardSection(text_digest(uri)[:16], uri, 0, 1, tokens, text_digest(text)[:32], key=text.split()[0], text=text)
        for uri, (text, tokens) in sorted(corpus.items())
    ]


def exact(sections: list[ShardSection]) -> list[Shard]:
    """The plan of an exact refresh."""
    found = plan_exact(section_columns([sections]), BOUNDS)
    return found.some(range(len(found)))


def tokens_read(parent: Sequence[Shard], shards: Sequence[Shard]) -> int:
    """Tokens that are read for a plan: of each new stream what no memory of the parent begins with."""
    known = {tuple(shard.contents) for shard in parent}
    read = 0
    for shard in shards:
        if tuple(shard.contents) in known:
            continue
        common = 0
        for old in parent:
            same = 0
            for one, other in zip(old.sections, shard.sections, strict=False):
                if one.content != other.content:
                    break
                same += one.tokens
            common = max(common, same)
        read += shard.tokens - common
    return read


@dataclass
class History:
    """A corpus that changes, the shards of its last version, and what was read for all of them."""

    corpus: Corpus
    max_stale: float = 0.2
    shards: list[Shard] = field(default_factory=list)
    read: int = 0
    new: int = 0
    gone: int = 0

    def __post_init__(self) -> None:
        self.shards = exact(sections_of(self.corpus))

    def refresh(self, corpus: Corpus, forced: Sequence[str] = ()) -> list[Shard]:
        before, after = ({s.content: s.tokens for s in sections_of(c)} for c in (self.corpus, corpus))
        self.new += sum(after[content] for content in after.keys() - before.keys())
        self.gone += sum(before[content] for content in before.keys() - after.keys())
        parent = self.shards
        self.shards = plan_delta(parent, sections_of(corpus), BOUNDS, self.max_stale, forced)
        self.corpus = corpus
        self.read += tokens_read(parent, self.shards)
        check(parent, self.shards, corpus, self.max_stale)
        return self.shards


def check(parent: Sequence[Shard], shards: Sequence[Shard], corpus: Corpus, max_stale: float) -> None:
    """What holds for every delta plan."""
    current = {section.content for section in sections_of(corpus)}
    held = Counter(content for shard in shards for content in set(shard.contents))
    assert current <= held.keys()
    ids = [shard.shard_id for shard in shards]
    assert len(set(ids)) == len(ids)
    assert [shard.kind for shard in shards] == sorted(shard.kind for shard in shards)  # base shards first
    old = {shard.shard_id: shard for shard in parent}
    taken = set[str]()
    for shard in shards:
        assert shard.tokens <= BOUNDS.max_tokens or len(shard.sections) == 1
        fresh = {section.content: section.tokens for section in shard.sections if section.content in current}
        idle = shard.tokens - sum(tokens for content, tokens in fresh.items() if content not in taken)
        taken |= fresh.keys()
        if shard.kind == "base":
            assert stale_tokens(shard, current) <= max_stale * shard.tokens
        else:
            assert idle <= MOST_IDLE * shard.tokens
        if shard.continues:
            known = old[shard.shard_id].contents
            assert shard.contents[: len(known)] == known
        elif shard.shard_id not in old or shard.contents != old[shard.shard_id].contents:
            # What is not kept can be made from the current documents.
            assert fresh.keys() == set(shard.contents)


EDITS = st.lists(
    st.tuples(st.sampled_from(["add", "edit", "remove", "move", "copy"]), st.integers(0, 10**6), st.integers(10, 400)),
    max_size=6,
)


def edited(corpus: Corpus, edits: Sequence[tuple[str, int, int]], day: int) -> Corpus:
    corpus = dict(corpus)
    for number, (kind, pick, tokens) in enumerate(edits):
        uri = sorted(corpus)[pick % len(corpus)] if corpus else None
        if kind == "add" or uri is None:
            corpus[f"{pick % 97:02d}-{day}-{number}"] = (f"key{day}.{number} new", tokens)
        elif kind == "edit":
            corpus[uri] = (f"{corpus[uri][0].split()[0]} edited {day} {number}", tokens)
        elif kind == "remove" and len(corpus) > 1:
            del corpus[uri]
        elif kind == "move":
            corpus[f"{pick % 97:02d}-moved-{day}-{number}"] = corpus.pop(uri)
        elif kind == "copy":
            corpus[f"{pick % 97:02d}-copy-{day}-{number}"] = corpus[uri]
    return corpus


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(10, 400), min_size=1, max_size=40),
    st.lists(EDITS, max_size=12),
    st.sampled_from([0.0, 0.1, 0.2, 0.5]),
)
def test_every_section_is_held_memories_are_fresh_enough_and_the_tokens_read_are_bounded(
    sizes: list[int], days: list[list[tuple[str, int, int]]], max_stale: float
) -> None:
    history = History({f"{i:02d}": (f"key{i} text", size) for i, size in enumerate(sizes)}, max_stale)
    for day, edits in enumerate(days):
        shards = history.refresh(edited(history.corpus, edits, day))
        again = plan_delta(shards, sections_of(history.corpus), BOUNDS, max_stale)
        assert [(s.shard_id, s.kind, s.contents) for s in again] == [(s.shard_id, s.kind, s.contents) for s in shards]
        assert tokens_read(shards, again) == 0


def test_a_moved_document_is_read_by_nobody() -> None:
    corpus = {f"{i:02d}": (f"key{i} text", 150) for i in range(30)}
    history = History(corpus)
    before = history.shards
    history.refresh({(f"zz-{uri}" if uri < "10" else uri): value for uri, value in corpus.items()})
    assert history.read == 0
    assert [shard.contents for shard in history.shards] == [shard.contents for shard in before]
    held = {section.content: section for shard in history.shards for section in shard.sections}
    assert held[text_digest("key3 text")[:32]].uris == ("zz-03", "03")


def test_a_change_goes_to_the_delta_shard_and_the_next_one_behind_it() -> None:
    history = History({f"{i:02d}": (f"key{i} text", 90) for i in range(30)})
    bases = history.shards
    history.refresh(history.corpus | {"07": ("key7 edited", 100)})
    assert history.shards[:-1] == bases and history.shards[-1].kind == "delta" and history.read == 100
    first = history.shards[-1]
    history.refresh(history.corpus | {"07x": ("key7x new", 50)})
    last = history.shards[-1]
    assert (last.shard_id, last.continues, last.tokens, history.read) == (first.shard_id, True, 150, 150)


def test_a_base_shard_takes_its_documents_back_when_too_much_of_it_is_stale() -> None:
    history = History({f"{i:02d}": (f"key{i} text", 90) for i in range(30)})
    shard = next(shard for shard in history.shards if len(shard.sections) >= 6)
    uris = [section.uri for section in shard.sections]
    for number, uri in enumerate(uris[1:]):
        history.refresh(history.corpus | {uri: (f"{history.corpus[uri][0].split()[0]} edited {number}", 90)})
        if shard.contents not in [kept.contents for kept in history.shards]:
            break
    assert 1 <= number < len(uris) - 1
    rebuilt = {s.content for s in history.shards for s in s.sections if s.uri in uris}
    assert rebuilt == {s.content for s in sections_of(history.corpus) if s.uri in uris}
    assert not any(shard.kind == "delta" for shard in history.shards)


def test_a_forced_shard_is_read_again_without_what_is_gone() -> None:
    corpus = {f"{i:02d}": (f"key{i} text", 90) for i in range(30)}
    history = History(corpus)
    first = history.shards[0]
    gone = first.sections[0]
    history.refresh({uri: value for uri, value in corpus.items() if uri != gone.uri}, [first.shard_id])
    assert gone.content not in {content for shard in history.shards for content in shard.contents}


def _hot(history: History, chance: random.Random, day: int) -> Corpus:
    """A tenth of the documents is edited again and again, as change logs are."""
    corpus = dict(history.corpus)
    for uri in chance.sample(sorted(corpus)[::10], 2):
        corpus[uri] = (f"{corpus[uri][0].split()[0]} edited {day}", chance.randint(20, 90))
    return corpus


def _anywhere(history: History, chance: random.Random, day: int) -> Corpus:
    corpus = dict(history.corpus)
    for uri in chance.sample(sorted(corpus), 2):
        corpus[uri] = (f"{corpus[uri][0].split()[0]} edited {day}", chance.randint(20, 90))
    corpus[f"{chance.randint(0, 299):03d}-{day}"] = (f"key-{day} new", chance.randint(20, 90))
    return corpus


@pytest.mark.parametrize("change", [_hot, _anywhere])
def test_over_many_days_the_tokens_read_stay_within_the_bound(
    change: Callable[[History, random.Random, int], Corpus],
) -> None:
    """docs/refresh.md: 2.5 times what is new and (1 / max_stale - 1) times what is gone; it is far below that."""
    chance = random.Random(11)
    history = History({f"{i:03d}": (f"key{i} text", chance.randint(20, 90)) for i in range(300)})
    for day in range(80):
        history.refresh(change(history, chance, day))
        assert history.read <= 2.5 * history.new + (1 / history.max_stale - 1) * history.gone
    assert history.read < 2.5 * history.new
    assert sum(shard.kind == "delta" for shard in history.shards) <= 4
    assert len(history.shards) < 4 * sum(size for _, size in history.corpus.values()) / BOUNDS.max_tokens


def test_a_copy_under_another_heading_is_not_read() -> None:
    copy, original = (
        ShardSection(uri, uri, 0, 1, 500, content=f"text under {uri}", key=uri, text="text") for uri in ("a", "b")
    )
    assert [shard.contents for shard in exact([copy, original])] == [["text under a"]]
    parent = exact([original])
    assert plan_delta(parent, [copy, original], BOUNDS, 0) == parent
    assert [shard.contents for shard in plan_delta(parent, [copy], BOUNDS, 0)] == [["text under a"]]
