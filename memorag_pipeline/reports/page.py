"""Pages of facts: one self-contained HTML file without scripts.

In:  a `RunReport`; all of its texts are escaped, and cannot change the direction of the page's own text.
Out: HTML, the same for the same facts.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from memorag_pipeline.amounts import bytes_text, counts_text, duration_text
from memorag_pipeline.html.clean_text import clean
from memorag_pipeline.html.templates import templates_of
from memorag_pipeline.jobs.answers.stages import GENERATE
from memorag_pipeline.progress import bytes_rate_text
from memorag_pipeline.refresh.stages import MEMORIZE
from memorag_pipeline.reports.facts import STATES, RunReport
from memorag_pipeline.reports.plots import formats_plot, stages_plot

# The displayed name of each state of a run.
STATE_TEXTS = {
    "published": "published",
    "unchanged": "nothing changed",
    "answered": "answered",
    "summarized": "summarized",
    "failed": "failed",
    "unfinished": "not finished",
    "running": "running",
    "idle": "no task at work",
}
_STATUS_TEXTS = {"no_evidence": "without evidence"}
_NOTHING = "\N{EN DASH}"
Tile = tuple[str, str, str]  # what it is, its value, a note


def run_page(report: RunReport, back: str | None = None) -> str:
    """The page of one run. `back` is the address of the page that links to it."""
    return (
        environment()
        .get_template("run.html.j2")
        .render(
            report=report,
            back=back,
            tiles=_refresh_tiles(report) if report.job is None else _job_tiles(report),
            columns=(*STATES, "quarantined"),
            formats=formats_plot(report),
            stages=stages_plot(report),
        )
    )


@functools.cache
def environment() -> Environment:
    """The templates of all pages."""
    found = templates_of("memorag_pipeline.reports", _finalized)
    found.filters |= {
        "bytes": bytes_text,
        "bytes_rate": bytes_rate_text,
        "counts": _counts,
        "duration": duration_text,
        "number": _number,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
        "share": _share,
        "state": lambda name: STATE_TEXTS[name],
        "time": _time,
        "words": lambda name: name.replace("_", " "),
    }
    return found


def _finalized(value: Any) -> Any:
    """What templates print for a value: nothing for None, plots unchanged, texts cleaned and then escaped."""
    if value is None:
        return ""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _refresh_tiles(report: RunReport) -> list[Tile]:
    tiles: list[Tile] = []
    counts = report.counts
    if "documents" in counts:
        tiles.append(("documents", _number(counts["documents"]), f"{_number(counts['chunks'])} chunks"))
    if report.formats:
        changes = {state: report.total(state) for state in STATES[1:]}
        note = ", ".join(f"{_number(count)} {state}" for state, count in changes.items() if count)
        tiles.append(("changed", _number(sum(changes.values())), note or "as in the parent version"))
    if (memorize := report.stage(MEMORIZE.name)) is not None:
        reused = memorize.counts.get("reused_tokens", 0)
        note = f"and {_number(reused)} reused" if reused else "none reused"
        tiles.append(("tokens memorized", _number(memorize.counts.get("memorized_tokens", 0)), note))
    tiles += _times(report)
    if report.blobs:
        new = sum(row.new_bytes for row in report.blobs)
        tiles.append(("size", bytes_text(sum(row.bytes for row in report.blobs)), f"{bytes_text(new)} of it new"))
    if "quarantined" in counts:
        reasons = len(report.quarantine)
        note = f"for {reasons} reason{'s' if reasons > 1 else ''}" if reasons else "all could be read"
        tiles.append(("in quarantine", _number(counts["quarantined"]), note))
    return [*tiles, *_cost(report)]


def _job_tiles(report: RunReport) -> list[Tile]:
    tiles: list[Tile] = []
    if report.statuses:
        rows = sum(report.statuses.values())
        carried = report.carried_over
        note = f"{_number(rows - carried)} asked, {_number(carried)} carried over" if carried else ""
        tiles.append((next(iter(report.counts), "questions"), _number(rows), note))
        (done, count), *others = report.statuses.items()
        tiles.append((done, _number(count), f"{_share(count / max(rows, 1))} of them"))
        tiles += [(_STATUS_TEXTS.get(status, status), _number(count), "") for status, count in others]
    if report.cut:
        tiles.append(("cut", _number(report.cut), "as long as they may get"))
    if (generate := report.stage(GENERATE.name)) is not None:
        given, written = (generate.counts.get(f"{way}_tokens", 0) for way in ("input", "output"))
        tiles.append(("tokens written", _number(written), f"from {_number(given)} read"))
    return [*tiles, *_times(report), *_cost(report)]


def _times(report: RunReport) -> list[Tile]:
    if report.seconds is None:
        return []
    return [("time", duration_text(report.seconds), f"{duration_text(report.device_seconds)} with models")]


def _cost(report: RunReport) -> list[Tile]:
    return [] if report.cost is None else [("cost", f"{report.cost:,.4f}", "in the currency of the spec's prices")]


def _number(value: int | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


def _counts(counts: Mapping[str, int]) -> str:
    return counts_text(counts) or _NOTHING


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _time(value: datetime | str) -> str:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{time.astimezone(UTC):%d %b %Y, %H:%M} UTC"
