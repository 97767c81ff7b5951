"""A dataset that may not be there yet, and a folder of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from unime_kedro.atomic import atomic_write
from unime_kedro.io.datasets import FileError, JsonFile, _File
from unime_kedro.io.run_figures import merge, read_run_figures


class OptionalFile(AbstractDataset[Any, Any]):
    """Another dataset, or None where its file does not exist.

    What is there is read, and checked, as that dataset does it: a broken file stays an error.

    Args:
        dataset: The other dataset, or its entry of a catalog (``type``, ``filepath`` and so on).
        metadata: Kedro's free-form metadata.
    """

    def __init__(self, dataset: AbstractDataset[Any, Any] | dict[str, Any], metadata: dict[str, Any] | None = None):
        made = dataset if isinstance(dataset, AbstractDataset) else AbstractDataset.from_config("optional", dataset)
        self._dataset = made
        # where tracking looks for a dataset's file
        self._filepath: Path | None = getattr(made, "_filepath", None)
        self.metadata = metadata

    def load(self) -> Any:
        """Return the dataset's content, None if it does not exist."""
        return self._dataset.load() if self._dataset.exists() else None

    def save(self, data: Any) -> None:
        """Save the content as the other dataset does."""
        self._dataset.save(data)

    def _exists(self) -> bool:
        return self._dataset.exists()

    def _describe(self) -> dict[str, Any]:
        return self._dataset._describe()


class FigureFolder(_File, AbstractDataset["dict[str, bytes]", "dict[str, bytes]"]):
    """PNG pictures in a folder of their own: ``{"curves": b"..."}`` is ``curves.png``.

    Saving replaces the folder's pictures by those that are given; other files in it stay.
    """

    def load(self) -> dict[str, bytes]:
        """Read all pictures, by name."""
        return {file.stem: file.read_bytes() for file in sorted(self._filepath.glob("*.png"))}

    def save(self, data: dict[str, bytes]) -> None:
        """Write pictures, each at once and whole, and remove those that are no longer made."""
        wrong = next((name for name in data if not name or Path(name).name != name or name.startswith(".")), None)
        if wrong is not None:
            raise FileError(f"{self._filepath}: {wrong!r} cannot be the name of a picture; expected a plain file name")
        if self._filepath.is_file():
            raise FileError(f"{self._filepath} cannot be a folder of figures: a file is in its way")
        for name, picture in data.items():
            with atomic_write(self._filepath / f"{name}.png") as temporary:
                temporary.write_bytes(picture)
        for file in self._filepath.glob("*.png"):
            if file.stem not in data:
                file.unlink()

    def _exists(self) -> bool:
        return self._filepath.is_dir()


class JsonFolder(_File, AbstractDataset["dict[str, Any]", "dict[str, Any]"]):
    """All JSON documents directly in a folder, by file name without suffix; none where there is no such folder.

    What is known of the runs that made them (see :mod:`.run_figures`) is put back into them.
    """

    def load(self) -> dict[str, Any]:
        """Read and parse every ``*.json``, in order of their names."""
        files = sorted(self._filepath.glob("*.json"))
        return {file.stem: merge(JsonFile(str(file)).load(), read_run_figures(file)) for file in files}

    def save(self, data: dict[str, Any]) -> None:
        """Refuse: several commands write here, each its own file."""
        raise FileError(f"{self._filepath}: a JsonFolder is only read")

    def _exists(self) -> bool:
        return True  # no folder is a folder without documents
