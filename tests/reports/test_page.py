"""The page of a run, made only from facts: hostile texts, empty states, equal pages for equal facts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

from memorag_pipeline.html.clean_text import clean
from memorag_pipeline.reports.facts import (
    FormatFacts,
    Problem,
    QuarantineFacts,
    RunReport,
    SampleAnswer,
    ScoreFacts,
    ShownPassage,
    StageFacts,
)
from memorag_pipeline.reports.page import run_page

BEGAN = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\u202egnp.exe\u2066\x00 ' + "w" * 3000 + "{{ 7 * 7 }}"


def a_report(**fields: object) -> RunReport:
    values = {"corpus": "kb", "uri": "s3://bucket/kb", "run_id": "scheduled__1", "state": "published", "version": 2}
    return RunReport.model_validate(values | fields)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in ("meta", "br", "path", "use", "rect", "circle", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def hostile_report() -> RunReport:
    passage = ShownPassage(uri=f"s3://b/{HOSTILE}", start=0, end=10, score=0.5, text=HOSTILE)
    return a_report(
        state="failed",
        run_id=HOSTILE,
        gate=HOSTILE,
        facts={HOSTILE: HOSTILE},
        problems=(Problem(stage="extract", task=0, attempt=1, error=HOSTILE),),
        quarantine=(QuarantineFacts(reason="empty", documents=2, advice="Look.", some=((HOSTILE, HOSTILE),)),),
        samples=(
            SampleAnswer(
                question=HOSTILE,
                status="answered",
                answer=HOSTILE,
                error=None,
                clues=(HOSTILE,),
                evidence=(passage,) * 3,
            ),
            SampleAnswer(question=HOSTILE, status="error", answer=None, error=HOSTILE),
        ),
        stages=(StageFacts(stage=HOSTILE, tasks=1, seconds=3.0),),
        formats=(FormatFacts(format=HOSTILE, added=1),),
    )


def test_hostile_texts_stay_texts() -> None:
    page = run_page(hostile_report())
    found = _Tags()
    found.feed(page)
    assert not found.open  # nothing was closed by a text
    assert not found.tags & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert not [name for name in found.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert not re.search("[\x00\u202e\u2066]", page)
    assert "{{ 7 * 7 }}" in page  # a text is not a template
    assert "http" not in page.replace("http-equiv", "")  # it needs no other files


def test_equal_facts_give_equal_pages() -> None:
    assert run_page(hostile_report()) == run_page(RunReport.model_validate_json(hostile_report().model_dump_json()))


def test_a_report_of_nothing_still_is_a_page() -> None:
    page = run_page(a_report(state="unfinished", version=None))
    assert "not finished" in page
    assert "None" not in page


def test_what_a_refresh_did_is_in_words_and_numbers() -> None:
    report = a_report(
        parent=1,
        began_at=BEGAN,
        ended_at=BEGAN + timedelta(seconds=75),
        counts={"documents": 1234, "chunks": 9, "quarantined": 0, "shards": 1, "tokens": 5},
        formats=(FormatFacts(format="md", unchanged=1230, added=3, modified=1), FormatFacts(format="pdf", removed=2)),
        stages=(
            StageFacts(
                stage="memorize", tasks=2, units=10, done=4, seconds=61, counts={"memorized_tokens": 1500, "shards": 4}
            ),
        ),
        scores=(ScoreFacts(name="answer_f1", value=0.5, before=0.75), ScoreFacts(name="mrr", value=0.25)),
        gate="published and not promoted",
        cost=0.5,
    )
    page = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style>.*?</style>|<[^>]+>", " ", run_page(report), flags=re.S))
    for expected in (
        "documents 1,234 9 chunks",
        "changed 6 3 added, 1 modified, 2 removed",
        "tokens memorized 1,500",
        "time 0:01:15 0:01:01 with models",
        "memorize 2 10 4 6 0:01:01 1,500 memorized tokens, 4 shards",
        "all 1,230 3 1 2 0",
        "answer f1 0.500 0.750 -0.250",
        "mrr 0.250 \N{EN DASH} \N{EN DASH}",
        "published and not promoted",
        "cost 0.5000",
        "compared with version 1",
        "01 Mar 2026, 02:00 UTC",
    ):
        assert expected in page, expected


def test_a_passage_that_the_answer_cites_is_marked() -> None:
    offered = [ShownPassage(uri="a", start=0, end=1, score=0.5, text="x", used=used) for used in (True, False)]
    sample = SampleAnswer(question="q", status="answered", answer="a [1]", error=None, evidence=tuple(offered))
    assert run_page(a_report(job="faq", state="answered", samples=(sample,))).count(", cited") == 1


def test_passages_keep_their_line_breaks() -> None:
    text = "  indented\n\n| a | b |\n| 1 | 2 |"
    passage = ShownPassage(uri="a", start=0, end=1, score=0.5, text=f"\n{text}\n")
    sample = SampleAnswer(question="q", status="answered", answer="one\n  two", error=None, evidence=(passage,))
    page = run_page(a_report(job="faq", state="answered", samples=(sample,)))
    assert f'<p class="passage" dir="auto">{text}</p>' in page
    assert '<p class="answer" dir="auto">one\n  two</p>' in page
    assert ".answer, .passage { white-space: pre-wrap; }" in page


def test_answers_that_were_carried_over_are_counted_as_such() -> None:
    statuses = {"answered": 9, "no_evidence": 0, "errors": 1}
    report = a_report(job="faq", state="answered", counts={"questions": 10}, statuses=statuses, carried_over=6)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", run_page(report)))
    for expected in ("questions 10 4 asked, 6 carried over", "answered 9 90.0 % of them", "errors 1"):
        assert expected in page


def test_a_run_that_did_not_end_does_not_say_what_was_done_before() -> None:
    stage = StageFacts(stage="memorize", tasks=1, units=10, done=4)
    assert '"done before">6<' in run_page(a_report(stages=(stage,)))
    assert '"done before">6<' not in run_page(a_report(stages=(stage,), state="failed"))


def test_clean_takes_what_reaches_beyond_a_text_and_nothing_else() -> None:
    assert clean("a\u202eb\x07\tשלם 中文\n") == "ab\ufffd\tשלם 中文\n"
