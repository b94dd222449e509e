"""The report of a comparison: one self-contained HTML page with tables and plots, and the same as JSON.

In:  a `Comparison`; all of its texts are escaped.
Out: `report.html` and `results.json` in a folder, which is created.
Wrong: a folder that cannot be written is an `OSError`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import TypeAdapter

from memorag_pipeline.evaluation.metrics import metric_name
from memorag_pipeline.evaluation.plots import estimates_plot
from memorag_pipeline.evaluation.report import page_environment
from memorag_pipeline.html.figures import Plot
from memorag_pipeline.specs.values import Metric

if TYPE_CHECKING:
    from memorag_pipeline.comparison.compare import Comparison, SetResult, SystemResult
    from memorag_pipeline.evaluation.bootstrap import Estimate


_PLOTTED: tuple[Metric, ...] = ("token_f1", "rouge_l", "evidence_recall_at_5")


def write_comparison(folder: Path, comparison: Comparison, title: str = "What memories are worth") -> None:
    """Write both files into `folder`."""
    from memorag_pipeline.comparison.compare import Comparison

    folder.mkdir(parents=True, exist_ok=True)
    page = page_environment().get_template("comparison.html.j2")
    html = page.render(
        title=title,
        comparison=comparison,
        sets=[(found, measured(found), _plot(f"set-{n}", found)) for n, found in enumerate(comparison.sets)],
        name=metric_name,
        interval=interval,
        gain=gain,
        reply=_reply,
    )
    (folder / "report.html").write_text(html, encoding="utf-8")
    values = TypeAdapter(Comparison).dump_python(comparison, mode="json")
    (folder / "results.json").write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


def measured(found: SetResult) -> list[Metric]:
    """The metrics that any system has on a set, in their order."""
    return [metric for metric in get_args(Metric) if any(metric in system.metrics for system in found.systems)]


def interval(value: Estimate | None) -> str:
    """A mean as per cent, with its interval."""
    return "" if value is None else f"{100 * value.mean:.1f} ({100 * value.low:.0f}\u2013{100 * value.high:.0f})"


def gain(value: Estimate | None) -> str:
    """A difference in points of per cent, with its interval."""
    return "" if value is None else f"{100 * value.mean:+.1f} ({100 * value.low:+.0f} to {100 * value.high:+.0f})"


def _reply(system: SystemResult, question_id: str) -> str:
    row = next(row for row in system.rows if row.question_id == question_id)
    return row.answer or row.error or "nothing"


def _plot(name: str, found: SetResult) -> Plot:
    panels = {
        metric_name(metric): {
            system.system: system.metrics[metric] for system in found.systems if metric in system.metrics
        }
        for metric in _PLOTTED
        if metric in measured(found)
    }
    return estimates_plot(name, panels, "Means with 95 % intervals; dotted: retrieval only.")
