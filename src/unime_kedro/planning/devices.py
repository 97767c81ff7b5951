"""Speeds of devices: what they can do at best, and the share of it that this project assumes a stage to reach."""

from __future__ import annotations

import os
from dataclasses import dataclass

from unime_kedro.errors import ConfigurationError
from unime_kedro.planning.interval import Interval


@dataclass(frozen=True)
class Device:
    """One GPU, or a machine's CPU.

    Attributes:
        name: As ``--gpu`` takes it.
        title: As its maker calls it.
        peak: Operations per second in dense bfloat16 (CPU: float32), at best.
        source: Where the figure is from.
    """

    name: str
    title: str
    peak: float
    source: str


_SHEET = "data sheet, dense bfloat16"

#: name -> GPU. Data sheets often give twice as much, for sparse matrices, which no model here has
GPUS: dict[str, Device] = {
    device.name: device
    for device in (
        Device("a800", "NVIDIA A800 80 GB (the paper's)", 312e12, f"{_SHEET}; as the A100"),
        Device("a100", "NVIDIA A100", 312e12, _SHEET),
        Device("h100", "NVIDIA H100 SXM", 989e12, _SHEET),
        Device("h200", "NVIDIA H200", 989e12, _SHEET),
        Device("l40s", "NVIDIA L40S", 362e12, _SHEET),
        Device("a10", "NVIDIA A10", 125e12, _SHEET),
        Device("rtx4090", "NVIDIA GeForce RTX 4090", 165e12, f"{_SHEET} with float32 sums"),
    )
}

#: operations per second of one CPU core: an assumption, for machines between a small virtual and a large real one
CPU_CORE = 40e9

#: stage -> share of the peak that is reached: assumptions, wide on purpose; --measure gives better ones. Judging with
#: shared prefixes runs many short sequences, training is bound by small chunks
UTILISATION: dict[str, Interval] = {
    "embed": Interval(0.15, 0.30, 0.50),
    "judge": Interval(0.08, 0.20, 0.40),
    "train": Interval(0.15, 0.28, 0.45),
    "rerank": Interval(0.15, 0.28, 0.45),
    "evaluate": Interval(0.10, 0.25, 0.45),
}


def find_gpu(name: str) -> Device:
    """Return a GPU of the table.

    Raises:
        ConfigurationError: Lists those that are known.
    """
    if name not in GPUS:
        raise ConfigurationError(
            f"--gpu={name}: no speed is known for it; known are {', '.join(GPUS)}. State one instead, with "
            "--flops=<operations per second at best>, or measure, with --measure."
        )
    return GPUS[name]


def cpu() -> Device:
    """Return this machine's CPU."""
    cores = os.cpu_count() or 1
    return Device("cpu", f"CPU with {cores} cores", cores * CPU_CORE, f"assumed {CPU_CORE:.0e} operations/s per core")


def gpu_here(title: str) -> Device | None:
    """Return the GPU of the table that torch's name of a device means, None if it is not in the table.

    Args:
        title: Such as ``NVIDIA A100-SXM4-80GB``.
    """
    words = title.lower().replace(" ", "")
    return next((GPUS[name] for name in sorted(GPUS, key=len, reverse=True) if name in words), None)
