"""The plots of run reports and of a corpus's page.

In:  the facts of one run, or of several.
Out: `Plot`s, see `figures`; None if there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memorag_pipeline.amounts import duration_text
from memorag_pipeline.html.clean_text import clean
from memorag_pipeline.html.figures import INK, SERIES, Plot, svg
from memorag_pipeline.refresh.stages import MEMORIZE
from memorag_pipeline.reports.facts import STATES, RunReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"unchanged": "#9a9a9a", "added": SERIES[2], "modified": SERIES[1], "removed": SERIES[0]}
_FORMATS = 8
_LONGEST = 20  # characters of a label
_TICKS = 7  # labels of refreshes that have room beside each other
_ROW = 0.1  # of a panel's height


def stages_plot(report: RunReport) -> Plot | None:
    """Seconds by stage."""
    stages = [stage for stage in report.stages if stage.tasks]
    if not stages or not any(stage.seconds for stage in stages):
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(
            [_label(stage.stage) for stage in stages], [stage.seconds for stage in stages], color=SERIES[1]
        )
        axes.bar_label(bars, [duration_text(stage.seconds) for stage in stages], padding=3, fontsize=8)
        axes.margins(x=0.18)
        axes.set_xlabel("seconds of tasks")
        _horizontal(axes)

    return Plot(svg("stages", draw, 0.1 + _ROW * len(stages)), "Task time by stage.")


def formats_plot(report: RunReport) -> Plot | None:
    """Documents that are new, modified or gone by format, most of them first; None when none is."""
    changed = [(sum(getattr(row, state) for state in STATES[1:]), row) for row in report.formats]
    rows = [row for count, row in sorted(changed, key=lambda pair: (-pair[0], pair[1].format)) if count][:_FORMATS]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        left = [0] * len(rows)
        for state in STATES[1:]:
            values = [getattr(row, state) for row in rows]
            axes.barh([_label(row.format) for row in rows], values, left=left, color=_COLOURS[state], label=state)
            left = [start + value for start, value in zip(left, values, strict=True)]
        axes.set_xlabel("source objects")
        _whole_numbers(axes.xaxis)
        _horizontal(axes)
        figure.legend(loc="outside upper center", ncols=3)

    return Plot(svg("formats", draw, 0.15 + _ROW * len(rows)), "Changes since the parent version, by format.")


def nights_plot(reports: Sequence[RunReport]) -> Plot | None:
    """Tokens that were memorized and seconds of the models, a bar for each refresh, the oldest first."""
    shown = [report for report in reports if report.began_at is not None]
    if not shown:
        return None
    names = [_night(report) for report in shown]
    places = range(len(shown))
    tokens = [_count(report, MEMORIZE.name, "memorized_tokens") for report in shown]
    reused = [_count(report, MEMORIZE.name, "reused_tokens") for report in shown]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.bar(places, tokens, color=SERIES[0], width=0.7, label="memorized")
        upper.bar(places, reused, bottom=tokens, color="#9a9a9a", width=0.7, label="reused within shards")
        upper.set_ylabel("tokens")
        upper.yaxis.set_major_formatter("{x:,.0f}")
        _whole_numbers(upper.yaxis)
        lower.bar(places, [report.device_seconds for report in shown], color=SERIES[1], width=0.7)
        lower.set_ylabel("seconds")
        step = max(1, -(-len(shown) // _TICKS))
        lower.set_xticks(list(places)[::step], names[::step], fontsize=8)
        lower.set_xlim(-0.7, max(len(shown), 6) - 0.3)
        for axes in (upper, lower):
            axes.grid(visible=False, axis="x")
        figure.legend(loc="outside upper center", ncols=2)

    return Plot(
        svg("nights", draw, 1.5),
        "Tokens that each refresh read or reused, and the seconds of its stages memorize and embed; times are UTC.",
    )


def _night(report: RunReport) -> str:
    """What tells a refresh from all others: its version, if it made one, and when it began."""
    version = f"v{report.version}" if report.state == "published" else "\N{EN DASH}"
    return f"{version}\n{report.began_at:%d %b}\n{report.began_at:%H:%M}"


def _label(name: str) -> str:
    """A name as a label of an axis."""
    return clean(name)[:_LONGEST]


def _count(report: RunReport, stage: str, name: str) -> int:
    facts = report.stage(stage)
    return 0 if facts is None else facts.counts.get(name, 0)


def _horizontal(axes: Any) -> None:
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(INK)


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))
