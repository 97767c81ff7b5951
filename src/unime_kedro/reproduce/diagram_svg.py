"""The picture of the pipelines as SVG, in light and dark.

Stages are rows, in the order of the work. A table, model or page is a box in the row of the stage that writes it, with
a line down to the last stage that reads it; a dot marks each stage that does. So every arrow of the graph is there, and
no two lines of it can be taken for one another, however many stages read a table.

Boxes are as wide as their words are in Helvetica, a bit more for other fonts; nothing is measured on the machine that
draws, so that the bytes are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from unime_kedro.reproduce.diagram import Kind, Rail, Row

#: sizes in pixels of the picture at its own width
_LEFT, _TOP, _GAP, _PAD, _STAGE, _LINE, _EDGE = 16, 36, 12, 7, 150, 15, 14
#: between the lines of two columns, at least
_APART = 30
_FONT, _SMALL = 12.5, 10.5
#: advance widths of Helvetica in thousandths of the font size; other characters are as wide as a digit
_WIDTHS = {**dict.fromkeys("ijl", 222), **dict.fromkeys("ft .,·", 278), "r": 333, "m": 833, "w": 722}
_WIDTHS |= dict.fromkeys("cksvxyz", 500)
_OTHER = 556
#: fonts that stand in for Helvetica are up to this much wider, but for DejaVu's, which may use up the padding
_WIDER = 1.04

_STYLE = """
svg { --card: #ffffff; --ink: #15191e; --soft: #5c646e; --rule: #c3c9d1; --band: #f5f7f9;
  --table: #2f6db3; --model: #b3570f; --page: #3d7f4a; --stage: #15191e; --on: #ffffff; }
@media (prefers-color-scheme: dark) { svg { --card: #14171b; --ink: #e8ebef; --soft: #9aa3ad; --rule: #454d57;
  --band: #1b1f25; --table: #78b0ee; --model: #f0a35e; --page: #83c795; --stage: #e8ebef; --on: #14171b; } }
text { font-family: Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif; font-size: 12.5px;
  fill: var(--ink); }
.small { font-size: 10.5px; fill: var(--soft); }
.stage { font-weight: bold; fill: var(--on); }
.row { stroke: var(--rule); stroke-width: 1.2; }
.table { --c: var(--table); } .model { --c: var(--model); } .page { --c: var(--page); }
.box { fill: var(--card); stroke: var(--c); stroke-width: 1.4; }
.rail { stroke: var(--c); stroke-width: 1.8; fill: none; }
.dot { fill: var(--c); stroke: var(--card); stroke-width: 1.5; }
.maybe { fill: var(--card); stroke: var(--c); stroke-width: 1.8; }
.word { fill: var(--c); }
""".strip()


@dataclass(frozen=True)
class _Place:
    """Where a rail lies: its column's left edge, and the width of its own box."""

    left: float
    width: float

    @property
    def line(self) -> float:
        """Where the line goes down: near the box's left edge, so that lines of one column are straight."""
        return self.left + 12


def svg(rows: Sequence[Row], rails: Sequence[Rail], title: str) -> str:
    """Draw stages, and what goes from one to the other.

    Args:
        rows: The stages, from above.
        rails: What they write for each other.
        title: What the picture is, for those who cannot see it.

    Returns:
        A standalone SVG document that follows the reader's light or dark mode, on a ground of its own: a page may be
        light where the reader's system is dark. The same graph gives the same bytes.
    """
    heights = [_row_height(number, row, rails) for number, row in enumerate(rows)]
    middles = [_TOP + sum(heights[:number]) + height / 2 for number, height in enumerate(heights)]
    places, right = _places(rails)
    leaves = right + _GAP
    width = leaves + max([_words(row) for row in rows], default=0) + _EDGE
    bottom = _TOP + sum(heights)
    parts = [f'<rect width="{_n(width)}" height="{_n(bottom + 40)}" rx="8" style="fill: var(--card)"/>']
    parts += [
        f'<rect x="8" y="{_n(y - h / 2)}" width="{_n(width - 16)}" height="{_n(h)}" rx="4" style="fill: var(--band)"/>'
        for y, h in list(zip(middles, heights, strict=True))[::2]
    ]
    parts += _heads(leaves)
    parts += [_row_line(number, y, rails, places) for number, y in enumerate(middles)]
    for rail, place in zip(rails, places, strict=True):
        parts += _rail(rail, place, middles)
    for row, y in zip(rows, middles, strict=True):
        parts += _stage(row, y) + _leaves(row, y, leaves)
    parts += _legend(bottom + 22)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(bottom + 40)}" '
        f'width="{_n(width)}" role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def text_width(text: str, size: float) -> float:
    """Return how wide a text may become, in pixels, in a font like Helvetica of a size."""
    return _WIDER * size * sum(_WIDTHS.get(character, _OTHER) for character in text) / 1000


def _row_height(number: int, row: Row, rails: Sequence[Rail]) -> float:
    lines = [len(row.leaves), 1 + len(_node_lines(row))]
    lines += [len(rail.datasets) for rail in rails if rail.maker == number]
    return max(44, 18 + _LINE * max(lines))


def _places(rails: Sequence[Rail]) -> tuple[list[_Place], float]:
    """Give every rail the first column whose last rail has ended above it; return them and the right edge of all."""
    ends: list[int] = []
    columns: list[int] = []
    for rail in rails:
        free = [column for column, end in enumerate(ends) if end < rail.maker]
        column = free[0] if free else len(ends)
        ends[column : column + 1] = [max(rail.readers)]
        columns.append(column)
    widths = [max(text_width(name, _FONT) for name in rail.datasets) + 2 * _PAD for rail in rails]
    lefts = _column_edges(rails, columns, widths)
    places = [_Place(lefts[column], width) for column, width in zip(columns, widths, strict=True)]
    return places, max((place.left + place.width for place in places), default=_LEFT + _STAGE)


def _column_edges(rails: Sequence[Rail], columns: Sequence[int], widths: Sequence[float]) -> list[float]:
    """Put every column as far to the left as the boxes of the columns before it allow.

    A box needs room only where a line is in its row: what begins below it may stand under it.
    """
    lefts: list[float] = []
    for column in range(max(columns, default=-1) + 1):
        left = lefts[-1] + _APART if lefts else float(_LEFT + _STAGE + _GAP)
        for box, before, width in zip(rails, columns, widths, strict=True):
            beside = (r for r, c in zip(rails, columns, strict=True) if c == column and before < column)
            if any(rail.maker <= box.maker <= max(rail.readers) for rail in beside):
                left = max(left, lefts[before] + width + _GAP)
        lefts.append(left)
    return lefts


def _words(row: Row) -> float:
    return max((text_width(name, _FONT) for name, _ in row.leaves), default=0)


def _heads(leaves: float) -> list[str]:
    heads = ((_LEFT, "stage, and its nodes"), (_LEFT + _STAGE + _GAP, "what one stage writes and others read"))
    texts = [(x, word) for x, word in (*heads, (leaves, "also written"))]
    return [f'<text class="small" x="{_n(x)}" y="24">{word}</text>' for x, word in texts]


def _row_line(number: int, y: float, rails: Sequence[Rail], places: Sequence[_Place]) -> str:
    """Draw the line from a stage to all that it reads and writes."""
    ends = [place.line for rail, place in zip(rails, places, strict=True) if number in (rail.maker, *rail.readers)]
    return f'<path class="row" d="M{_LEFT + _STAGE} {_n(y)}H{_n(max(ends))}"/>' if ends else ""


def _rail(rail: Rail, place: _Place, middles: Sequence[float]) -> list[str]:
    """Draw a box, the line below it, and a dot for each reader."""
    y, height = middles[rail.maker], _LINE * len(rail.datasets) + 9
    last = middles[max(rail.readers)]
    parts = [
        f'<g class="{rail.kind}">',
        f'<path class="rail" d="M{_n(place.line)} {_n(y)}V{_n(last)}"/>',
        f'<rect class="box" x="{_n(place.left)}" y="{_n(y - height / 2)}" width="{_n(place.width)}" '
        f'height="{_n(height)}" rx="5"/>',
    ]
    first = y - _LINE * (len(rail.datasets) - 1) / 2 + 4
    for line, name in enumerate(rail.datasets):
        parts.append(f'<text x="{_n(place.left + _PAD)}" y="{_n(first + _LINE * line)}">{escape(name)}</text>')
    for number, optional in sorted(rail.readers.items()):
        style, radius = ("maybe", 4) if optional else ("dot", 5)
        parts.append(f'<circle class="{style}" cx="{_n(place.line)}" cy="{_n(middles[number])}" r="{radius}"/>')
    return [*parts, "</g>"]


def _node_lines(row: Row) -> list[str]:
    """Return the names of a stage's nodes in lines that fit into its box."""
    lines: list[str] = []
    for name in row.nodes:
        longer = f"{lines[-1]} · {name}" if lines else name
        if lines and text_width(longer, _SMALL) <= _STAGE - 2 * _PAD:
            lines[-1] = longer
        else:
            lines.append(name)
    return lines


def _stage(row: Row, y: float) -> list[str]:
    nodes = _node_lines(row)
    height = 14 + _LINE * (1 + len(nodes))
    top = y - height / 2
    parts = [
        f'<rect x="{_LEFT}" y="{_n(top)}" width="{_STAGE}" height="{_n(height)}" rx="5" style="fill: var(--stage)"/>',
        f'<text class="stage" x="{_LEFT + _PAD}" y="{_n(top + 17)}">{escape(row.name)}</text>',
    ]
    return parts + [
        f'<text class="small" style="fill: var(--on); opacity: .75" x="{_LEFT + _PAD}" '
        f'y="{_n(top + 17 + _LINE * (1 + line))}">{escape(text)}</text>'
        for line, text in enumerate(nodes)
    ]


def _leaves(row: Row, y: float, x: float) -> list[str]:
    first = y - _LINE * (len(row.leaves) - 1) / 2 + 4
    return [
        f'<text class="{_leaf_style(kind)}" x="{_n(x)}" y="{_n(first + _LINE * line)}">{escape(name)}</text>'
        for line, (name, kind) in enumerate(row.leaves)
    ]


def _leaf_style(kind: Kind) -> str:
    return "small" if kind == "table" else f"{kind} word"


def _legend(y: float) -> list[str]:
    """Say what marks and colours mean."""
    entries = (
        ("table", "dot", "read by the stage of this row"),
        ("table", "maybe", "read if it is there"),
        ("table", "box", "table"),
        ("model", "box", "model"),
        ("page", "box", "page"),
    )
    parts, x = [], float(_LEFT + 6)
    for kind, style, words in entries:
        if style == "box":
            mark = f'<rect class="box" x="{_n(x - 5)}" y="{_n(y - 5)}" width="14" height="10" rx="3"/>'
        else:
            mark = f'<circle class="{style}" cx="{_n(x)}" cy="{_n(y)}" r="4.5"/>'
        parts.append(f'<g class="{kind}">{mark}<text class="small" x="{_n(x + 14)}" y="{_n(y + 4)}">{words}</text></g>')
        x += 14 + text_width(words, _SMALL) + 18
    left_out = "left out: parameters, figures of runs, digests, folders of work"
    return [*parts, f'<text class="small" x="{_n(x)}" y="{_n(y + 4)}">{left_out}</text>']


def _n(value: float) -> str:
    """Return a number of pixels with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
