"""Findings of checks: whatever a check does, there is one for it, in time and without secrets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from memorag_pipeline.doctor.findings import Check, Finding, NotLookedError, exit_code_of, findings_of
from memorag_pipeline.errors import MemoragError, StorageError, WarehouseError

CPU = "pip install 'memorag-pipeline[cpu]', or [gpu] on a machine with an NVIDIA GPU"


def raises(error: Exception) -> Callable[[], NoReturn]:
    def look() -> NoReturn:
        raise error

    return look


def test_a_check_that_hangs_is_given_up_and_the_others_are_told() -> None:
    answered = threading.Event()
    checks = [Check("hangs", lambda: str(answered.wait(60)), StorageError), Check("good", lambda: "there")]
    hung, good = findings_of(checks, 0.2)
    answered.set()
    assert hung.state == "bad" and "no answer within 0.2 s" in hung.found and hung.exit_code == 5
    assert good == Finding("good", "good", "there")


@pytest.mark.parametrize(
    ("error", "state", "found", "code"),
    [
        (StorageError("s3://a:hunter2@b is full\nof it"), "bad", "s3://…@b is full of it", 5),
        (NotLookedError("there is no Airflow"), "not looked", "there is no Airflow", 0),
        (ValueError("hunter2"), "bad", "ValueError; the command that needs it says more", 1),
        (ModuleNotFoundError(name="duckdb"), "bad", f"duckdb is not installed here; {CPU}", 8),
    ],
)
def test_whatever_is_raised_is_a_finding(error: Exception, state: str, found: str, code: int) -> None:
    (finding,) = findings_of([Check("it", raises(error))])
    assert finding == Finding("it", state, found, code)  # type: ignore[arg-type]


def test_secrets_of_the_spec_are_struck_out() -> None:
    checks = [
        Check("a", lambda: "key hunter2"),
        Check("b", raises(MemoragError("not hunter2"))),
        Check("c", lambda: ""),
    ]
    assert [each.found for each in findings_of(checks, secrets=["hunter2"])] == ["key …", "not …", ""]


def test_the_exit_code_is_that_of_the_first_bad_finding() -> None:
    checks = [Check("a", lambda: ""), Check("b", raises(WarehouseError("no"))), Check("c", raises(StorageError("no")))]
    assert exit_code_of(findings_of(checks)) == 7
    assert exit_code_of(findings_of(checks[:1])) == 0
