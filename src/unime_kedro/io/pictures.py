"""Pictures for a page that must carry them itself: small, each of them once, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

#: bytes of all pictures of a page together, before base64 adds a third
PAGE_BYTES = 2_000_000
#: longest side of a picture in pixels, by the least bytes that it may then take
_SIDES = ((4_500, 224), (2_500, 160), (0, 112))
_LARGEST = _SIDES[0][1]
#: formats that every browser shows as they are
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Pictures:
    """The pictures of one page, numbered in the order in which they are first asked for.

    A picture that is small already, such as a drawing of 112 pixels, goes in byte for byte. A larger one is scaled down
    and encoded as WebP. How large is too large depends on how many there are: together they keep to ``page_bytes``, as
    far as pictures of 112 pixels can.

    Args:
        root: Folder that the paths are relative to.
        page_bytes: What all pictures together may take.
    """

    def __init__(self, root: str | Path, page_bytes: int = PAGE_BYTES) -> None:
        self._root = Path(root).resolve()
        self._page_bytes = page_bytes
        self._known: dict[str, _Picture | None] = {}

    def name(self, path: str) -> str | None:
        """Return the CSS class of the picture at ``path``; None when the folder has no such file that decodes."""
        if path not in self._known:
            file = (self._root / path).resolve()
            inside = file.is_relative_to(self._root) and file.is_file()
            self._known[path] = _read(file, f"p{len(self._known)}") if inside else None
        picture = self._known[path]
        return picture.name if picture else None

    def encoded(self) -> list[tuple[str, str]]:
        """Return (CSS class, data URI) of every picture that was asked for and is there."""
        there = [picture for picture in self._known.values() if picture]
        allowance = self._page_bytes // max(1, len(there))
        return [(picture.name, picture.data_uri(allowance)) for picture in there]


@dataclass(frozen=True)
class _Picture:
    """A decoded picture of at most 224 pixels, with the file's own bytes where a browser can show them as small."""

    name: str
    small: Image
    mime: str
    original: bytes

    def data_uri(self, allowance: int) -> str:
        """Return the picture as a data URI, of about ``allowance`` bytes at most before base64."""
        side = next(side for least, side in _SIDES if allowance >= least)
        mime, data = self.mime, self.original
        if not data or len(data) > allowance:
            small = self.small.copy()
            small.thumbnail((side, side))
            buffer = io.BytesIO()
            small.save(buffer, format="WEBP", quality=80, method=2)
            if not data or buffer.tell() < len(data):
                mime, data = "image/webp", buffer.getvalue()
        return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _read(file: Path, name: str) -> _Picture | None:
    """Decode a file to its last pixel; None when that fails."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            mime = _MIME.get(picture.format or "", "")
            original = file.read_bytes() if mime and max(picture.size) <= _LARGEST else b""
            picture.draft("RGB", (_LARGEST, _LARGEST))  # a JPEG decodes at a fraction of its size; others ignore it
            upright = ImageOps.exif_transpose(picture)
            small = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            small.thumbnail((_LARGEST, _LARGEST))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return _Picture(name, small, mime, original)
