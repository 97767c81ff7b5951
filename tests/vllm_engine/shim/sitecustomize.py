"""Lets PyPI's torchvision, which is built for CUDA, be imported beside a CPU build of torch.

Its compiled part does not load there, and ``import torchvision`` then fails because two operators that it describes were
never registered. vLLM imports torchvision in processes of its own as well, hence a ``sitecustomize`` on ``PYTHONPATH``.
Nothing happens until torchvision is imported, nor where its own operators load; a torchvision for CPU needs none of this.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.util
import sys
from pathlib import Path

_OPERATORS = ("nms", "qnms")


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None and not _loads(Path(spec.origin).parent):
            _register()
        return spec


def _loads(folder: Path) -> bool:
    import torch  # noqa: F401  (torchvision's library needs torch's to be there)

    try:
        ctypes.CDLL(str(next(folder.glob("_C*.so"))))
    except (OSError, StopIteration):
        return False
    return True


def _register() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys._torchvision_operators = library  # they are gone with the library


sys.meta_path.insert(0, _BeforeTorchvision())
