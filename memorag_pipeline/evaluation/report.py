"""The report of an adapter: one self-contained HTML page with tables and plots.

In:  an `Evaluation`, the curve of the training, and facts to be listed; all of their texts are escaped.
Out: a file.
Wrong: a missing folder is an `OSError`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from memorag_pipeline.evaluation.curve import CurvePoint
from memorag_pipeline.evaluation.plots import curve_plot, memory_name, needles_plot, positions_plot, ratios_plot
from memorag_pipeline.html.templates import templates_of

if TYPE_CHECKING:
    from memorag_pipeline.evaluation.adapter import Evaluation

__all__ = ["CurvePoint", "write_report"]


def write_report(
    path: Path,
    evaluation: Evaluation,
    curve: Sequence[CurvePoint],
    facts: Mapping[str, str],
    title: str = "Evaluation of a memory adapter",
) -> None:
    """Write the page to `path`. `facts` are listed unchanged, below those of the evaluation."""
    page = page_environment().get_template("report.html.j2")
    html = page.render(
        title=title,
        evaluation=evaluation,
        facts=facts,
        curve=curve_plot(curve) if curve else None,
        ratios=ratios_plot(evaluation),
        positions=positions_plot(evaluation),
        needles=needles_plot(evaluation) if evaluation.needles else None,
    )
    path.write_text(html, encoding="utf-8")


@functools.cache
def page_environment() -> Environment:
    """Templates of pages; what they are given is escaped."""
    environment = templates_of("memorag_pipeline.evaluation")
    environment.filters |= {"share": _share, "memory": memory_name}
    return environment


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"
