"""What the command answer says of a job."""

from __future__ import annotations

from memorag_pipeline.cli.answers import _told
from memorag_pipeline.runner import AnswerResult


def told(**counts: float) -> str:
    return _told(AnswerResult(2, int(counts["rows"]), "a warehouse", {"load": counts}, {"load": 0.0}))


def test_answers_that_were_carried_over_are_not_counted_as_asked() -> None:
    expected = "10 questions: 9 answered, 1 error; 4 asked, 6 carried over from an earlier version"
    assert told(rows=10, answered=9, errors=1, carried_over=6) == expected


def test_a_job_that_asked_everything_says_only_how_it_ended() -> None:
    assert told(rows=1, answered=1, errors=0) == "1 question: 1 answered"
