"""Pictures on their way to the vision tower: read, decoded, resized and normalised once each.

Few or small pictures are processed where they are needed. With ``workers`` processes a torch ``DataLoader`` prepares
them ahead, in the order in which they will be needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from unime_kedro.mllm.adapters.base import BackboneAdapter, ImageWorker, ProcessedImage


def read_image(processor: ImageWorker | BackboneAdapter, file: Path) -> ProcessedImage:
    """Read and process one picture; transparent pictures are laid on white.

    Raises:
        DataError: If the file is missing or no picture.
    """
    try:
        return processor.process_image(open_picture(file))
    except (OSError, ValueError) as error:  # of the image processor, such as a picture that is too narrow for it
        raise _unreadable(file, error) from error


def open_picture(file: Path) -> Image:
    """Read one picture as RGB; transparent pictures are laid on white.

    Raises:
        DataError: If the file is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                layer = image.convert("RGBA")
                page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
                page.alpha_composite(layer)
                image = page  # type: ignore[assignment]
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(
        f"picture {file} cannot be read: {error}. Ingest drops such rows when ingest.check_images is full; run it "
        "again."
    )


class _Files:
    """A torch map-style dataset of pictures."""

    def __init__(self, worker: ImageWorker, files: Sequence[Path]) -> None:
        self.worker, self.files = worker, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Path, ProcessedImage]:
        file = self.files[index]
        return file, read_image(self.worker, file)


def stream_images(
    adapter: BackboneAdapter, files: Sequence[Path], workers: int
) -> Iterator[tuple[Path, ProcessedImage]]:
    """Yield processed pictures in the order of ``files``.

    Args:
        adapter: Whose image processor to use.
        files: Pictures, in the order in which they are needed.
        workers: Processes that prepare them ahead; 0 processes each when it is asked for.
    """
    if workers == 0:
        for file in files:
            yield file, read_image(adapter, file)
        return
    from torch.utils.data import DataLoader

    from unime_kedro.mllm.adapters.base import ImageWorker

    yield from DataLoader(
        _Files(ImageWorker.of(adapter), files),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=min(workers, max(len(files), 1)),
        multiprocessing_context="spawn",
        prefetch_factor=16,
    )
