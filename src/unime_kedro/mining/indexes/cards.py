"""What an index on disk was made of. The card is written last and removed first: an index without one is none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from unime_kedro.atomic import atomic_write

from ..index import Ids, Vectors, rows

_ROWS = 65_536


def read_card(path: Path) -> dict[str, Any]:
    """Return a card; one that is missing or unreadable is empty."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def write_card(path: Path, card: dict[str, Any]) -> None:
    """Write a card, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def candidates_digest(embeddings: Vectors, item_ids: Ids) -> str:
    """Return a hash of the candidates' ids and vectors, 32 hex digits; reads every vector once."""
    digest = hashlib.blake2b(f"{embeddings.shape[1]}:{len(item_ids)}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(item_ids).data)
    for start in range(0, len(item_ids), _ROWS):
        digest.update(rows(embeddings, item_ids[start : start + _ROWS]).data)
    return digest.hexdigest()
