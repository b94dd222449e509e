"""Figures of reports, as SVG that is put into a page and takes its colours, light or dark.

In:  a function that draws into a matplotlib figure.
Out: a `Plot`: SVG without scripts, links and identifiers that nothing refers to; equal figures give equal text.

matplotlib is imported with the first figure, by its object interface: nothing global is changed.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from memorag_pipeline.machine.cache_folder import cache_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INK = "#010203"  # replaced by the colour of the page's text
SERIES = ("#d9541e", "#2b83c9", "#1c9a6c", "#a86cc1", "#b8860b", "#808080")
_WIDTH, _HEIGHT = 4.4, 2.6  # inches, for a row of panels
_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 9,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.markersize": 4,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Plot:
    """An SVG element, and what it shows."""

    svg: Markup
    caption: str


def svg(name: str, draw: Callable[[Figure], None], rows: float = 1) -> Markup:
    """What `draw` draws in a figure with `rows` rows of panels. `name` makes the identifiers of a page's plots
    distinct."""
    # By itself matplotlib makes a folder for its configuration in the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS | {"svg.hashsalt": name}), io.StringIO() as text:
        figure = Figure(figsize=(_WIDTH, _HEIGHT * (0.3 + 0.7 * rows)), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata=_METADATA)
        content = text.getvalue()
    # Inside a page neither the document type nor the namespaces are needed.
    content = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", content[content.index("<svg") :])
    content = content.replace("xlink:href", "href").replace(INK, "currentColor")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', content))
    # Only the plot's own elements: matplotlib escapes what text there is in it.
    return Markup(re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", content))
