"""The plots of a report, as SVG that is embedded in a page and takes its colours, light or dark.

In:  an `Evaluation`, the curve of a training, estimates by system.
Out: `Plot`s: SVG without scripts, links and unused identifiers; equal figures give equal text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from memorag_pipeline.html.figures import INK, SERIES, Plot, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from memorag_pipeline.evaluation.adapter import Evaluation, MemoryRow, NeedleRow
    from memorag_pipeline.evaluation.bootstrap import Estimate
from memorag_pipeline.evaluation.curve import CurvePoint

K = TypeVar("K")
T = TypeVar("T")

_STYLES = {
    "beacon": ("#d9541e", "o"),
    "attention": ("#2b83c9", "s"),
    "recent": ("#1c9a6c", "^"),
    "uniform": ("#a86cc1", "D"),
}


def memory_name(memory: str) -> str:
    """A memory's name for readers."""
    return {"beacon": "beacon", "all": "the whole stream"}.get(memory, f"selected, {memory}")


def curve_plot(curve: Sequence[CurvePoint]) -> Plot:
    """Loss by tokens of training, and below it the gap closed where that was measured."""
    measured = [(point.tokens, 100 * point.gap) for point in curve if point.gap is not None]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2 if measured else 1, 1, sharex=True, squeeze=False)[:, 0]
        panels[0].plot([point.tokens for point in curve], [point.loss for point in curve], color=SERIES[0])
        panels[0].set_ylabel("loss, nats")
        if measured:
            panels[1].plot(*zip(*measured, strict=True), "o-", color=SERIES[1])
            panels[1].set_ylabel("gap closed, %")
        panels[-1].set_xlabel("tokens of training")
        panels[-1].locator_params(axis="x", nbins=5)
        panels[-1].xaxis.set_major_formatter("{x:,.0f}")

    return Plot(svg("curve", draw, 2 if measured else 1), "Training, by tokens.")


def ratios_plot(evaluation: Evaluation) -> Plot:
    """Gap closed by ratio, a line for each memory."""
    ratios = sorted({row.ratio for row in evaluation.memories})

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for memory, rows in _grouped(evaluation.memories, lambda row: row.memory).items():
            axes.errorbar(
                [ratios.index(row.ratio) for row in rows],
                [100 * row.gap.closed for row in rows],
                [100 * (row.gap.standard_error or 0) for row in rows],
                capsize=2,
                **_style(memory),
            )
        axes.set_xticks(range(len(ratios)), [str(ratio) for ratio in ratios])
        axes.set_xlabel("tokens per slot")
        axes.set_ylabel("gap closed, %")
        _legend(figure)

    return Plot(
        svg("ratios", draw),
        "Share of the gap between no context and all of it that a memory closes; with its standard error.",
    )


def positions_plot(evaluation: Evaluation) -> Plot:
    """Gap closed by position, a panel for each ratio."""
    panels = _grouped(evaluation.memories, lambda row: row.ratio)

    def draw(figure: Figure) -> None:
        for (ratio, rows), axes in zip(panels.items(), _panels(figure, len(panels), "gap closed, %"), strict=True):
            _draw_positions(axes, ratio, rows, evaluation.positions)
        _legend(figure)

    return Plot(
        svg("positions", draw, -(-len(panels) // 2)),
        "The same by position of the token that is asked: the first ones lie next to the memory.",
    )


def needles_plot(evaluation: Evaluation) -> Plot:
    """Share of right choices by depth, a panel for each memory and a line for each length."""

    def draw(figure: Figure) -> None:
        for row, axes in zip(evaluation.needles, _panels(figure, len(evaluation.needles), "right, %"), strict=True):
            _draw_needles(axes, row, evaluation.candidates)
        _legend(figure)

    return Plot(
        svg("needles", draw, -(-len(evaluation.needles) // 2)),
        f"How often the right number was chosen among {evaluation.candidates}, by the needle's depth and the stream's"
        " length; dotted: by chance.",
    )


def estimates_plot(name: str, panels: Mapping[str, Mapping[str, Estimate]], caption: str) -> Plot:
    """A panel for each measure, below one another: by system a mean and its interval, the first system as a line."""

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for (measure, found), axes in zip(panels.items(), rows, strict=True):
            places = range(len(found))
            for place, value in zip(places, found.values(), strict=True):
                axes.plot([100 * value.low, 100 * value.high], [place, place], color=SERIES[1])
                axes.plot(100 * value.mean, place, "o", color=SERIES[0])
            axes.axvline(100 * next(iter(found.values())).mean, color=INK, linestyle=":", linewidth=1)
            axes.set_yticks(places, list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
            most = max(100 * value.high for value in found.values()) or 1
            axes.set_xlim(-0.03 * most, 1.03 * most)
            axes.set_xlabel(f"{measure}, %")

    return Plot(svg(name, draw, sum(map(len, panels.values())) / 4), caption)


def _draw_positions(axes: Axes, ratio: int, rows: Sequence[MemoryRow], positions: Sequence[str]) -> None:
    for row in rows:
        axes.plot([100 * share for share in row.gap.by_position], **_style(row.memory))
    axes.set_title(f"ratio {ratio}")
    axes.set_xticks(range(len(positions)), list(positions), rotation=30)


def _draw_needles(axes: Axes, row: NeedleRow, candidates: int) -> None:
    for number, (tokens, cells) in enumerate(_grouped(row.cells, lambda cell: cell.tokens).items()):
        axes.plot(
            [cell.depth for cell in cells],
            [100 * cell.accuracy for cell in cells],
            "o-",
            color=SERIES[number % len(SERIES)],
            label=f"{tokens:,} tokens",
        )
    axes.axhline(100 / candidates, color=INK, linestyle=":", linewidth=1)
    axes.set_xlim(-0.05, 1.05)
    axes.set_xticks([0, 0.5, 1])
    axes.set_ylim(-5, 105)
    axes.set_title(memory_name(row.memory) + (f", ratio {row.ratio}" if row.ratio else ""))
    axes.set_xlabel("depth")


def _panels(figure: Figure, count: int, label: str) -> list[Axes]:
    """`count` panels, two to a row, with a label left of them; the place of an unused one stays empty."""
    columns = min(count, 2)
    places = figure.subplots(-(-count // columns), columns, squeeze=False, sharey=True)
    for first in places[:, 0]:
        first.set_ylabel(label)
    found: list[Axes] = places.flatten().tolist()
    for empty in found[count:]:
        empty.remove()
    return found[:count]


def _legend(figure: Figure) -> None:
    """One for all panels, above them."""
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)


def _style(memory: str) -> dict[str, Any]:
    colour, marker = _STYLES.get(memory, (INK, "x"))
    return {"color": colour, "marker": marker, "label": memory_name(memory)}


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
