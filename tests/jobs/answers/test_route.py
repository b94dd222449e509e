"""Routing pins a version, sends questions to the shards that hold their passages, and lists only work that is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memorag_pipeline.errors import NotFoundError
from memorag_pipeline.jobs.answers.recall_units import RecallUnits
from memorag_pipeline.jobs.answers.route import best_shards, questions_by_shard, route
from memorag_pipeline.jobs.answers.settings import AnswerSettings
from memorag_pipeline.pipeline import Pipeline
from memorag_pipeline.retrieval.passage import Passage
from memorag_pipeline.schemas import ROUTED_QUESTIONS
from memorag_pipeline.specs.corpus import CorpusSpec
from memorag_pipeline.storage import BlobRef
from tests.storage.work_json import read_json


def hit(shard_id: str, score: float) -> Passage:
    return Passage(f"{shard_id}-{score}", "document", "uri", 0, 1, score, "text", shard_id)


def test_the_shard_of_the_best_hit_comes_first_however_many_hits_another_has() -> None:
    hits = [hit("b", 0.9), hit("a", 0.8), hit("a", 0.7), hit("a", 0.6), hit("c", 0.5)]
    assert best_shards(hits, 2) == ["b", "a"]
    assert best_shards(hits, 9) == ["b", "a", "c"]
    assert best_shards([], 2) == []


def test_of_equal_scores_the_lower_id_is_first_in_any_order_of_hits() -> None:
    hits = [hit("b", 0.5), hit("a", 0.5)]
    assert best_shards(hits, 1) == best_shards(hits[::-1], 1) == ["a"]


def test_questions_are_grouped_by_shard_in_their_order() -> None:
    rows = [{"question_id": name, "question": name.upper()} for name in ("x", "y", "z")]
    assert questions_by_shard(rows, [["b", "a"], [], ["a"]]) == {"a": [("x", "X"), ("z", "Z")], "b": [("x", "X")]}


def test_a_plan_names_the_version_and_holds_every_question_once(pipeline: Pipeline) -> None:
    routed = route(pipeline, "faq")
    plan = read_json(pipeline, routed["plan"])
    assert (plan["job"], plan["version"], routed["version"]) == ("faq", 1, 1)
    assert plan["manifest"] == pipeline.store.versions.record(1).manifest.model_dump()
    table = pipeline.store.blobs.get_table(BlobRef(**plan["questions"]))
    assert table.schema == ROUTED_QUESTIONS
    assert table["question_id"].to_pylist() == ["lambda", "empty", "pass", "nonlocal"]
    shards = {shard_id for each in table["shards"].to_pylist() for shard_id in each}
    assert routed["counts"] == {"questions": 4, "errors": 1, "carried_over": 0, "shards": len(shards)}


def test_a_question_goes_to_the_shard_that_holds_its_document(pipeline: Pipeline) -> None:
    questions = questions_of(pipeline, route(pipeline, "faq"))
    (shards,) = pipeline.store.versions.manifest(1).of_role("shards")
    holders = {row["uri"].rsplit("/", 1)[1]: row["shard_id"] for row in read_rows(pipeline, shards.ref)}
    routes = {row["question_id"]: row["shards"] for row in questions}
    for name in ("lambda", "pass", "nonlocal"):
        assert holders[f"{name}.rst"] in routes[name]
    assert routes["empty"] == []


def test_work_lists_hold_all_questions_for_generation_and_the_good_ones_for_recall(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]
) -> None:
    fresh = make_pipeline(shards_per_question=1, clue_tokens=11)
    routed = route(fresh, "faq")
    generate = [unit for uri in routed["generate"] for unit in read_json(fresh, uri)["units"]]
    recall = [unit for uri in routed["recall"] for unit in read_json(fresh, uri)["units"]]
    assert [number for unit in generate for number in unit["rows"]] == [0, 1, 2, 3]
    assert sorted(number for unit in recall for number in unit["rows"]) == [0, 2, 3]


def test_the_same_plan_comes_out_twice(pipeline: Pipeline) -> None:
    assert route(pipeline, "faq") == route(pipeline, "faq")


@pytest.mark.parametrize(
    ("change", "recall_changes"),
    [
        ({"clue_tokens": 9}, True),
        ({"clues": ["spans"]}, True),
        ({"evidence": 2}, False),
        ({"generation": {"max_new_tokens": 6}}, False),
        ({"generation": {"seed": 1}}, False),
    ],
    ids=str,
)
def test_what_a_setting_decides_is_done_again_and_nothing_else(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline], change: dict[str, Any], recall_changes: bool
) -> None:
    other = make_pipeline(**change)
    before, after = (read_json(each, route(each, "faq")["plan"]) for each in (pipeline, other))
    assert not set(before["batches"]) & set(after["batches"])
    assert (recall_name(pipeline) != recall_name(other)) == recall_changes


def test_a_job_without_clues_recalls_nothing(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]) -> None:
    plain = make_pipeline(clues=[])
    routed = route(plain, "faq")
    assert routed["recall"] == [] and routed["generate"]
    assert routed["counts"]["shards"] == 0


def test_no_questions_are_no_work(pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]) -> None:
    routed = route(make_pipeline([""]), "faq")
    assert (routed["recall"], routed["generate"]) == ([], [])
    assert routed["counts"] == {"questions": 0, "errors": 0, "carried_over": 0, "shards": 0}


def test_a_channel_decides_the_version_and_an_argument_decides_over_it(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline.store.channels.promote("live", 1, "tests", "for the test")
    assert route(make_pipeline(channel="live"), "faq")["version"] == 1
    with pytest.raises(NotFoundError, match="no channel 'stable'; it has: live"):
        route(make_pipeline(channel="stable"), "faq")
    with pytest.raises(NotFoundError, match="no version 7; it has: 1"):
        route(make_pipeline(channel="live"), "faq", 7)


def test_a_corpus_without_version_asks_for_a_refresh(make_spec: Callable[..., CorpusSpec], pipeline: Pipeline) -> None:
    jobs = {"faq": pipeline.spec.jobs["faq"].model_dump(exclude_defaults=True)}
    with pytest.raises(NotFoundError, match="holds no version; refresh the corpus first"):
        route(Pipeline(make_spec("source", jobs=jobs)), "faq")


def test_an_unknown_job_is_refused_with_the_known_ones(pipeline: Pipeline) -> None:
    with pytest.raises(NotFoundError, match="no job 'fqa'; its jobs: faq"):
        route(pipeline, "fqa")


def test_a_question_that_comes_first_changes_one_batch_and_moves_no_other(
    pipeline: Pipeline, make_pipeline: Callable[..., Pipeline]
) -> None:
    asked = [{"question": f"What is number {number}?"} for number in range(60)]
    before, after = (
        read_json(pipeline, route(make_pipeline(questions, clues=[]), "faq")["plan"])["batches"]
        for questions in (asked, [{"question": "What is new?"}, *asked])
    )
    assert 15 <= len(before) <= 60
    assert len(set(after) - set(before)) <= 2 and len(set(before) - set(after)) <= 1


def recall_name(pipeline: Pipeline) -> str:
    """The unit of one question asked of the first memory."""
    manifest = pipeline.store.versions.manifest(1)
    names = RecallUnits(manifest, AnswerSettings.of_job(pipeline.spec, pipeline.spec.job("faq"), manifest))
    return names.fingerprint((manifest.memories[0].shard_id, "Why?"))


def questions_of(pipeline: Pipeline, routed: dict[str, Any]) -> list[dict[str, Any]]:
    plan = read_json(pipeline, routed["plan"])
    return read_rows(pipeline, BlobRef(**plan["questions"]))


def read_rows(pipeline: Pipeline, ref: BlobRef) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pipeline.store.blobs.get_table(ref).to_pylist()
    return rows
