"""What a machine can train on."""

from __future__ import annotations


def count_gpus() -> int:
    """Return how many GPUs torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_name() -> str | None:
    """Return what the maker calls the first GPU that torch can use here, None if there is none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
