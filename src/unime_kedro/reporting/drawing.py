"""Figures as PNG files, and as SVG that follows the page's colours in light and dark.

A figure is drawn once, in the light colours of :data:`PALETTE`. In the SVG each of them is replaced by the page's
variable of that role, and words stay words in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unime_kedro.imports import quick_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: colour in a figure -> the page's variable. The first five are told apart by colour-blind readers, too.
PALETTE = {
    "#2f6db3": "--first",
    "#d9762b": "--second",
    "#8a8f98": "--soft",
    "#15191e": "--ink",
    "#dfe3e8": "--line",
    "#000000": "--ink",
    "#ffffff": "--card",
}
FIRST, SECOND, SOFT, INK, LINE = list(PALETTE)[:5]
_FONT = re.compile(r"""font(-family)?: ?([^;"]*?)(['"]?)DejaVu Sans[^;"]*""")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return an empty figure (inches) with its panels in reading order. ``pyplot`` is never imported."""
    with quick_imports():
        import numpy as np
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        for side in axes.spines.values():
            side.set_color(SOFT)
        axes.tick_params(labelsize=9, color=SOFT, labelcolor=INK)
    return figure, panels


def png(figure: Figure) -> bytes:
    """Return a figure as PNG: the same bytes for the same figure, no software or date in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element to be put into the page.

    Args:
        figure: The figure, in colours of :data:`PALETTE`.
        name: Distinct on the page; begins the ids within, which would clash with those of other figures.
        description: What is seen, for those who cannot see it.
    """
    import html

    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "unime-kedro", "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # a style within an inline SVG holds for the whole page; the page's own style has it, for figures alone
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in PALETTE.items():
        text = text.replace(colour, f"var({variable})")
    text = _FONT.sub(lambda found: f"font-family: inherit{_size(found.group(2))}", text)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    label = html.escape(description, quote=True)
    return f'<svg viewBox="{box.group(1)}" role="img" aria-label="{label}">{body}'.strip()


def _size(shorthand: str) -> str:
    """Return the size in a font's shorthand (``9px``) as a declaration of its own."""
    found = re.search(r"[\d.]+px", shorthand)
    return f"; font-size: {found.group()}" if found else ""


class Drawings:
    """The figures of a report, each as PNG and as SVG.

    Attributes:
        pngs: name -> PNG.
        svgs: name -> ``<svg>`` element.
    """

    def __init__(self) -> None:
        self.pngs: dict[str, bytes] = {}
        self.svgs: dict[str, str] = {}

    def add(self, name: str, figure: Figure | None, description: str) -> None:
        """Draw a figure; None is left out."""
        if figure is not None:
            self.pngs[name], self.svgs[name] = png(figure), svg(figure, name, description)
