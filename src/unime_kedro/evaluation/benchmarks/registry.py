"""The benchmarks that are known by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from unime_kedro.errors import ConfigurationError
from unime_kedro.evaluation.benchmarks.captioned import COCO, FLICKR30K, SHAREGPT4V, SUGARCREPE, URBAN1K
from unime_kedro.evaluation.benchmarks.declarations import Benchmark
from unime_kedro.evaluation.benchmarks.embedded import EMOJI_CAPTIONS, EMOJI_CREPE, MINI_MMEB
from unime_kedro.evaluation.benchmarks.mmeb import MMEB

#: name -> declaration, published ones first
BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (MMEB, FLICKR30K, COCO, SHAREGPT4V, URBAN1K, SUGARCREPE, MINI_MMEB, EMOJI_CAPTIONS, EMOJI_CREPE)
}


def find_benchmark(name: str) -> Benchmark:
    """Return a known benchmark.

    Raises:
        ConfigurationError: If there is none of that name; names the nearest.
    """
    if name not in BENCHMARKS:
        raise ConfigurationError(f"There is no benchmark {name!r}. {suggestion(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest of the known names, whatever its case, and all of them."""
    names = list(known)
    by_case = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=0.5)
    question = f"Did you mean {by_case[near[0]]!r}? " if near else ""
    return f"{question}Known are: {', '.join(names)}."
