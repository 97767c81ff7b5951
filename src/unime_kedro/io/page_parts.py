"""What all pages are made of: how a content looks, and the template engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.io.pictures import Pictures

if TYPE_CHECKING:
    from jinja2 import Environment

#: MMEB's placeholder for the picture in a text
IMAGE = "<|image_1|>"

#: characters of a text that a page shows at most
_LONGEST_TEXT = 1_000


def face(text: str, image: str, pictures: Pictures) -> dict[str, Any]:
    """Return how a content looks, for the macros of ``parts.html.j2``.

    Args:
        text: Its text, with placeholders.
        image: The path of its picture in ``pictures``, "" for none.
        pictures: The page's pictures.

    Returns:
        parts: the text between placeholders; image: the path; picture: its CSS class, None if it cannot be shown.
    """
    parts = [part.strip() for part in text.split(IMAGE)]
    if image:  # at either end of the text the placeholder says no more than the picture that stands there already
        parts = parts[not parts[0] and len(parts) > 1 :]
        parts = parts[: -1 if len(parts) > 1 and not parts[-1] else None]
    length = sum(map(len, parts))
    if length > _LONGEST_TEXT:
        parts = [" … ".join(parts)[:_LONGEST_TEXT].rstrip() + " …"]
    words = " ".join(parts).strip()
    return {
        "parts": parts if words or len(parts) > 1 else [],
        "image": image,
        "picture": pictures.name(image) if image else None,
    }


def environment() -> Environment:
    """Return Jinja with escaping on, and undefined names as errors."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = lambda n, one, many: f"{n:,} {one if n == 1 else many}"
    environment.filters["number"] = lambda value, digits=3: "n/a" if value is None else f"{value:.{digits}f}"
    return environment
