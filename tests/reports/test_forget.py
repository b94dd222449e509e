"""What reports say of a document is gone after its purge, and the refresh says what else waits, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from memorag_pipeline import runner
from memorag_pipeline.refresh.purge import Purge
from memorag_pipeline.reports import archive
from memorag_pipeline.reports.facts import QuarantineFacts, RunReport, SampleAnswer, ShownPassage
from memorag_pipeline.reports.forget import Forgotten, forget
from memorag_pipeline.reports.page import run_page
from memorag_pipeline.runs.tasks import Run
from memorag_pipeline.storage import CorpusStore
from memorag_pipeline.storage.garbage.waiting import WaitingReader
from tests.fixtures.changing_corpus import ChangingCorpus, document

BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
SECRET = "The flying saucer"
FORGOTTEN = Forgotten(Purge(["**/secret.md"]), frozenset({"s3://b/a.md", "s3://b/rows.csv"}), frozenset({1}))


def sample(*uris: str, question: str = "Q?", clues: tuple[str, ...] = ("a clue",)) -> SampleAnswer:
    evidence = tuple(ShownPassage(uri=uri, start=0, end=1, score=0.5, text=f"text of {uri}") for uri in uris)
    return SampleAnswer(question=question, status="answered", answer="A.", error=None, clues=clues, evidence=evidence)


def report(version: int, *samples: SampleAnswer, **fields: object) -> RunReport:
    values = {"corpus": "topics", "uri": "", "run_id": "r", "job": "faq", "state": "answered", "version": version}
    return RunReport.model_validate(values | {"samples": samples} | fields)


def left(found: RunReport) -> list[tuple[bool, list[str]]]:
    """Of each sample whether it has its answer, and the URIs of its passages."""
    return [(each.answer is not None, [passage.uri for passage in each.evidence]) for each in found.samples]


def test_an_answer_that_rests_on_the_document_goes_with_its_passage() -> None:
    before = report(2, sample("s3://b/secret.md", "s3://b/a.md"), sample("s3://b/a.md"), sample("s3://b/x/secret.md#3"))
    found = FORGOTTEN.without(before)
    assert left(found) == [(False, ["s3://b/a.md"]), (True, ["s3://b/a.md"]), (False, [])]
    assert [each.clues for each in found.samples] == [(), ("a clue",), ()]
    page = run_page(found)
    assert found.purged and "secret.md" not in page
    assert page.count("Removed: the text rested on a document that was purged.") == 2
    assert "have been removed from this report" in page


def test_a_report_that_does_not_cite_it_stays_as_it_is() -> None:
    before = report(2, sample("s3://b/a.md", "s3://b/removed.md"), sample("s3://b/rows.csv#7"))
    assert FORGOTTEN.without(before) is before


def test_over_a_retired_version_the_document_may_have_had_another_name() -> None:
    found = FORGOTTEN.without(report(1, sample("s3://b/old-name.md"), sample("s3://b/rows.csv#7")))
    assert left(found) == [(False, []), (True, ["s3://b/rows.csv#7"])]
    assert [each.clues for each in found.samples] == [(), ()]  # memories of that version had read it


def test_clues_of_answers_that_were_carried_over_may_be_of_an_old_memory() -> None:
    found = FORGOTTEN.without(report(2, sample("s3://b/a.md"), carried_over=1))
    assert left(found) == [(True, ["s3://b/a.md"])]
    assert found.samples[0].clues == ()
    assert FORGOTTEN.without(found) is found


def test_a_summary_of_it_and_its_place_in_the_quarantine_go() -> None:
    titles = ("s3://b/secret.md", "s3://b/secret.md: prices", "s3://b/a.md: prices")
    reason = QuarantineFacts(
        reason="empty", documents=2, advice="", some=(("s3://b/secret.md", "x"), ("s3://b/c", "y"))
    )
    found = FORGOTTEN.without(report(2, *(sample(question=title) for title in titles), quarantine=(reason,)))
    assert [each.question for each in found.samples] == ["s3://b/a.md: prices"]
    assert found.quarantine[0].some == (("s3://b/c", "y"),)


def texts(store: CorpusStore) -> list[str]:
    return [store.objects.read(key).decode() for key in store.objects.list("reports")]


def test_a_refresh_rewrites_the_reports_and_says_what_waits(changing: ChangingCorpus) -> None:
    for number in range(4, 16):
        changing.remove(f"{'ab'[number % 2]}/{number:02d}.md")
    changing.write("a/secret.md", document(50) + f"\n{SECRET}\n")
    pipeline = changing.pipeline()
    store = pipeline.store
    runner.refresh(pipeline, "first")
    uri = f"file://{changing.folder}/source/a/secret.md"
    cited = SampleAnswer(
        question="Which saucer?",
        status="answered",
        answer=f"{SECRET} [1].",
        error=None,
        clues=(SECRET,),
        evidence=(ShownPassage(uri=uri, start=0, end=9, score=0.5, text=SECRET),),
    )
    for hour, job in enumerate(("faq", "other")):
        run = Run("r", BEGAN + timedelta(hours=hour), job)
        archive.write(store.objects, run, report(1, cited), f"<p>{SECRET}")
    store.objects.put("reports/jobs/faq/20250101T000000Z-0123456789ab.json", f'"{SECRET}"'.encode())
    store.objects.put("reports/jobs/faq/20250101T000000Z-0123456789ab.html", SECRET.encode())
    assert sum(SECRET in text for text in texts(store)) == 6

    forgetful = changing.pipeline(refresh={"purge": ["**/secret.md"]}, store={"retention": {"grace_days": 5}})
    result = runner.refresh(forgetful, "purge")
    assert sum(SECRET in text for text in texts(store)) == 0
    assert len(texts(store)) == 4  # one could not be read, by which nobody can tell what it cites
    waiting, reports = result.notes
    day = (datetime.now(UTC) + timedelta(days=10)).date()  # five days until it is condemned, five until it is deleted
    assert waiting.startswith("version 1 is retired; ")
    assert f"that only it holds may go from {day} on, by memorag gc or the maintenance DAG" in waiting
    assert reports == "3 reports of runs are rewritten without documents that refresh.purge names"

    # A run over the old version that ends later leaves no passage for longer than until the next refresh.
    archive.write(store.objects, Run("late", BEGAN, "faq"), report(1, cited), f"<p>{SECRET}")
    again = runner.refresh(forgetful, "again")
    assert (again.created, len(again.notes)) == (False, 1)
    assert sum(SECRET in text for text in texts(store)) == 0
    assert forget(store, ["**/secret.md"]) == 0

    # What waits is what the old version alone refers to, and nothing is left of it after a sweep.
    reader = WaitingReader(store, timedelta(days=5))
    found = reader.read()
    assert found is not None
    manifests = [store.versions.manifest_of(store.versions.record(number)) for number in (1, 2)]
    first, second = ({blob.digest: blob.size for blob in manifest.blobs} for manifest in manifests)
    assert (found.versions, found.size) == ((1,), sum(size for digest, size in first.items() if digest not in second))
    store.objects.delete(store.versions.record(1).manifest.key)
    assert reader.read() is None


def test_without_a_purge_no_report_is_looked_at(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = CorpusStore(str(tmp_path_factory.mktemp("store") / "topics"))
    store.objects.put("reports/refresh/20250101T000000Z-0123456789ab.json", b"7")
    assert forget(store, []) == 0
    assert len(texts(store)) == 1
