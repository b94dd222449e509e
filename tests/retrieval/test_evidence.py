"""Which passages become evidence."""

from __future__ import annotations

from memorag_pipeline.retrieval.evidence import choose, fuse, in_document_order, unite
from memorag_pipeline.retrieval.passage import Passage


def passage(name: str, text: str = "", document: str = "", start: int = 0, score: float = 0.5) -> Passage:
    text = text or f"what {name} says"
    document = document or f"document of {name}"
    return Passage(name, document, f"file:///{document}", start, start + len(text), score, text, "shard")


def words(text: str) -> int:
    return len(text.split())


def chosen(hits: list[list[Passage]], limit: int = 10, budget: int = 1000) -> list[str]:
    return [found.chunk_id for found in choose(fuse(hits), limit, words, budget)]


A, B, C, D, E = (passage(name) for name in "abcde")


def test_question_alone_keeps_its_order() -> None:
    assert chosen([[C, A, B]]) == ["c", "a", "b"]
    assert chosen([[C, A, B]], limit=2) == ["c", "a"]


def test_what_clues_find_as_well_moves_up() -> None:
    assert chosen([[A, B, C], [C, D]]) == ["a", "c", "b", "d"]


def test_clues_that_agree_do_not_push_out_what_the_question_finds_first() -> None:
    assert chosen([[A, B], [B, C], [B, C], [B]], limit=1) == ["a"]


def test_what_all_clues_find_stands_beside_what_the_question_finds() -> None:
    assert chosen([[A, B, C], [E, D], [E], [E]]) == ["a", "e", "b", "c", "d"]


def test_one_of_many_clues_comes_after_the_question() -> None:
    assert chosen([[A, B, C], [D], [E], [], []]) == ["a", "b", "c", "d", "e"]


def test_score_is_the_highest_of_all_queries() -> None:
    better = passage("a", score=0.9)
    (found,) = fuse([[passage("a", score=0.4)], [better]])
    assert found == better


def test_equal_texts_are_given_once() -> None:
    copy = passage("copy", text="what a   says\n", document="elsewhere")
    assert chosen([[A, copy, B]]) == ["a", "b"]


def test_stretches_that_overlap_by_more_than_half_are_given_once() -> None:
    first = passage("first", text="x" * 100, document="d", start=0)
    half = passage("half", text="y" * 60, document="d", start=70)
    mostly = passage("mostly", text="z" * 60, document="d", start=40)
    elsewhere = passage("elsewhere", text="z" * 60, document="another", start=40)
    assert chosen([[first, half, mostly, elsewhere]]) == ["first", "half", "elsewhere"]


def test_budget_leaves_out_what_does_not_fit_and_takes_what_does() -> None:
    long = passage("long", text="too many words for what is left here")
    assert chosen([[A, long, B]], budget=7) == ["a", "b"]
    assert chosen([[A, long, B]], budget=11) == ["a", "long"]


def test_of_a_best_passage_that_is_too_long_the_beginning_is_taken() -> None:
    (found,) = choose([passage("a", text="one two three four", start=10)], 2, words, 2)
    assert words(found.text) == 2
    assert found.text == "one two three four"[: len(found.text)]
    assert (found.start, found.end) == (10, 10 + len(found.text))


def test_nothing_found_is_no_evidence() -> None:
    assert chosen([[], []]) == []


def test_a_union_has_the_first_hits_of_each_in_the_order_of_the_documents() -> None:
    late, early = passage("late", document="a", start=500), passage("early", document="a", start=5)
    hits = [[C, late, D], [early, C], [passage("late", document="a", start=500, score=0.9)]]
    assert [found.chunk_id for found in unite(hits, 2)] == ["early", "late", "c"]
    assert unite(hits, 2)[1].score == 0.9
    assert [found.chunk_id for found in choose(unite(hits, 2), None, words, 7)] == ["early", "late"]


def test_document_order_is_by_uri_and_place() -> None:
    one, two, other = (passage(*each) for each in (("one", "", "a", 9), ("two", "", "a", 10), ("other", "", "B", 0)))
    assert in_document_order([two, one, other]) == [other, one, two]
