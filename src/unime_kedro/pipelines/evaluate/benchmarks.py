"""Which benchmarks are evaluated, read from disk."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.parameters import EvaluateParameters
from unime_kedro.paths import resolve

if TYPE_CHECKING:
    from unime_kedro.evaluation.benchmarks import LoadedBenchmark

log = logging.getLogger(__name__)

#: benchmarks that the project draws itself
EMBEDDED = ("mini-MMEB", "EmojiCaptions", "EmojiCrepe")

#: name -> :class:`.evaluation.benchmarks.LoadedBenchmark`; named by no string, as Kedro reads the nodes' annotations
Loaded = Mapping[str, Any]


def load_benchmarks(evaluate: EvaluateParameters, progress: ProgressFactory) -> Loaded:
    """Read the benchmarks that parameters name, in their order; say which data sets are missing.

    Raises:
        ConfigurationError: If none is left.
        DataError: If one is not there, other than those that the project draws.
    """
    from unime_kedro.evaluation.benchmarks import load_benchmark

    found: dict[str, LoadedBenchmark] = {}
    for name, source in evaluate.benchmarks.items():
        if source is None:
            continue
        root = resolve(source.root)
        if name in EMBEDDED and not root.is_dir():
            log.warning("%s is left out: there is no folder %s. kedro run --pipeline=demo draws it.", name, root)
            continue
        image_root = resolve(source.image_root) if source.image_root else None
        loaded = load_benchmark(name, root, image_root, source.datasets, progress=progress)
        for note in loaded.notes if loaded.benchmark.layout != "mmeb" else ():  # whose reader warns itself
            log.warning("%s: %s", name, note)
        if loaded.missing:
            log.warning(
                "%s: %d of %d data sets are missing, and every mean over them: %s",
                *(name, len(loaded.missing), len(loaded.benchmark.datasets), ", ".join(loaded.missing)),
            )
        found[name] = loaded
    if not found:
        raise ConfigurationError(
            "evaluate.benchmarks: there is no benchmark to evaluate on. Name one with its folder, such as "
            "--params=evaluate.benchmarks.MMEB.root=/data/MMEB-eval, or draw mini-MMEB: kedro run --pipeline=demo"
        )
    return found
