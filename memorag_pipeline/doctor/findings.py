"""Checks and their findings: each check runs in a thread of its own, and all of them end in bounded time.

In:  checks: a name and a function that looks and says what it found.
Out: a `Finding` for each, in their order.
Wrong: nothing is raised: what a check raises, and that it takes too long, is its finding.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from memorag_pipeline.errors import MemoragError, headline
from memorag_pipeline.machine.packages import named_packages
from memorag_pipeline.redaction import redacted

SECONDS = 60.0  # for all checks together


class NotLookedError(Exception):
    """A check cannot look here; the text says why."""


@dataclass(frozen=True)
class Check:
    """`look` says what it found, and raises `MemoragError` or `NotLookedError`.

    `kind` is the error that no answer in time counts as.
    """

    name: str
    look: Callable[[], str]
    kind: type[MemoragError] = MemoragError

    def finding(self, secrets: Sequence[str] = ()) -> Finding:
        """What the check found."""
        try:
            with named_packages():
                return Finding(self.name, "good", redacted(self.look(), *secrets))
        except NotLookedError as reason:
            return Finding(self.name, "not looked", redacted(str(reason), *secrets))
        except MemoragError as error:
            return Finding(self.name, "bad", redacted(str(error).replace("\n", " "), *secrets), error.exit_code)
        except Exception as error:  # of a library; its text might hold a secret
            told = f"{headline(error)}; the command that needs it says more"
            return Finding(self.name, "bad", told, self.kind.exit_code)


@dataclass(frozen=True)
class Finding:
    """What a check found. `exit_code` is that of the error, 0 if there is none."""

    check: str
    state: Literal["good", "bad", "not looked"]
    found: str
    exit_code: int = 0


def findings_of(checks: Sequence[Check], seconds: float = SECONDS, secrets: Sequence[str] = ()) -> list[Finding]:
    """The findings of all checks, which run at the same time; those that take longer are given up."""
    found: dict[int, Finding] = {}

    def run(number: int, check: Check) -> None:
        found[number] = check.finding(secrets)

    # Daemons: a thread that still waits for a server must not keep the program from ending.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(checks)]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {seconds:g} s; check address and network, or wait longer with --timeout"
    return [found.get(n) or Finding(check.name, "bad", late, check.kind.exit_code) for n, check in enumerate(checks)]


def exit_code_of(findings: Sequence[Finding]) -> int:
    """The exit code of the first bad finding: the order of the checks is that in which a run would need them."""
    return next((finding.exit_code for finding in findings if finding.state == "bad"), 0)
