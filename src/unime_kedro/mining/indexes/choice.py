"""Which index ``auto`` takes: an exact one where that takes minutes, and the reason in one line.

Rates are measured by ``benchmarks/bench_index.py``; docs/decisions says when. An approximate index is worth its misses
only where the exact search is a matter of hours.
"""

from __future__ import annotations

from dataclasses import dataclass

from .options import IndexOptions, Kind

#: multiplications and additions per second and core of a flat search, the selection of the nearest included
CORE_RATE = 4e10
#: and per GPU. Not measured: a sixth of what one of 2020 does in float32
GPU_RATE = 3e12


@dataclass(frozen=True)
class Work:
    """What is to be searched, and with what."""

    queries: int
    candidates: int
    dim: int
    cores: int
    gpus: int

    @property
    def flops(self) -> float:
        """Multiplications and additions of an exact search."""
        return 2.0 * self.queries * self.candidates * self.dim


def choose(work: Work, options: IndexOptions) -> tuple[Kind, str]:
    """Return the kind of index, and why.

    Flat while that takes ``flat_minutes`` at most; else flat on GPUs, if there are any and they are that fast; else
    inverted lists, on GPUs that can hold the candidates or from disk. Never the graph: it is in memory as a whole,
    takes longest to build, and its strength is the single query, which does not occur here.
    """
    if options.kind != "auto":
        return options.kind, "as configured (pool.index.kind)"
    size = f"{work.queries:,} query items x {work.candidates:,} candidates x {work.dim}"
    exact = work.flops / (CORE_RATE * work.cores) / 60
    limit = f"pool.index.flat_minutes is {options.flat_minutes:g}"
    if exact <= options.flat_minutes:
        return "flat", f"exact search of {size} takes about {exact:.2g} min on {_number(work.cores, 'core')}; {limit}"
    slow = f"exact search of {size} takes about {exact:,.0f} min on {_number(work.cores, 'core')}"
    if not work.gpus:
        return "ivf", f"{slow}, faiss sees no GPU; {limit}"
    on_gpus = work.flops / (GPU_RATE * work.gpus) / 60
    slow += f", {on_gpus:.2g} min on {_number(work.gpus, 'GPU')}"
    if on_gpus <= options.flat_minutes:
        return "gpu_flat", f"{slow}; {limit}"
    fits = work.candidates * work.dim * 4 / 2**30 / work.gpus <= options.gpu_memory_gb
    where = "the GPUs hold all candidates" if fits else "the GPUs do not hold all candidates"
    return ("gpu_ivf" if fits else "ivf"), f"{slow}, {where}; {limit}"


def _number(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
