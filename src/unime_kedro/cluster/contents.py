"""All contents of a run, once per machine: workers find them by item_id in Ray's object store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unime_kedro.mllm.content import Content


def put_contents(contents: Sequence[Content]) -> Any:
    """Put contents where all workers can read them; returns a reference."""
    import ray

    return ray.put(
        pa.table(
            {
                "text": pa.array([content.text for content in contents], pa.large_string()),
                "image": pa.array(
                    [str(content.image) if content.image else None for content in contents], pa.large_string()
                ),
            }
        )
    )


class Contents:
    """Contents by item_id.

    Args:
        reference: Of :func:`put_contents`. Read without a copy; workers of a machine share the memory.
    """

    def __init__(self, reference: Any) -> None:
        import ray

        table = ray.get(reference)
        self._text, self._image = table["text"], table["image"]

    def __getitem__(self, item_id: int) -> Content:
        """Return one content."""
        image = self._image[item_id].as_py()
        return Content(self._text[item_id].as_py(), Path(image) if image else None)
