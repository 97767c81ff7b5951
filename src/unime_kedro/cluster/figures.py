"""Figures of many workers as one worker's."""

from __future__ import annotations

from collections.abc import Iterable

#: name -> of what it is the share that was not run, by whichever name the backend has for it
_SHARES = ("prefix_reuse_share", "prefix_hit_rate")
_LARGEST = ("checked_difference",)


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Return what was counted between two looks; shares and largest values stay as they are now."""
    kept = (*_SHARES, *_LARGEST)
    return {name: value if name in kept else value - before.get(name, 0) for name, value in after.items()}


def total(figures: Iterable[dict[str, float]]) -> dict[str, float]:
    """Sum counts, recompute shares of tokens, keep the largest of what is a largest value."""
    found: dict[str, float] = {}
    for one in figures:
        for name, value in one.items():
            found[name] = max(found.get(name, 0.0), value) if name in _LARGEST else found.get(name, 0) + value
    for name in _SHARES:
        if name in found:
            prompt = found.get("prompt_tokens", 0)
            found[name] = 1 - found["run_tokens"] / prompt if prompt else 0.0
    return found
