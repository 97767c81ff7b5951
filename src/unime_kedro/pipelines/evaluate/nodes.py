"""Nodes of pipeline ``evaluate``."""

import logging
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.parameters import EvaluateParameters, IngestParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.evaluate import benchmarks, models, results
from unime_kedro.progress import progress

log = logging.getLogger(__name__)

Metrics = dict[str, Any]


def load(
    evaluate: EvaluateParameters,
    corpus: dict[str, Any] | None,
    trained_model: dict[str, Any] | None,
    reranker: dict[str, Any] | None,
) -> benchmarks.Loaded:
    """Read every benchmark once, pictures' headers and all.

    Args:
        evaluate: Which benchmarks, where.
        corpus: Not read, like the other two: whoever makes a benchmark or a model in the same run comes first.
        trained_model: See ``corpus``.
        reranker: See ``corpus``.

    Returns:
        Name -> benchmark.

    Raises:
        ConfigurationError: If no benchmark or no model is left to be evaluated.
        DataError: If a benchmark is not there, or is not of its layout.
        ModelError: If a model is not there.
    """
    models.check_models(evaluate)  # what is wrong with models is said before minutes of reading
    return benchmarks.load_benchmarks(evaluate, progress)


def find_leaks(
    evaluation_benchmarks: benchmarks.Loaded,
    items: pl.DataFrame | None,
    ingest: IngestParameters,
    evaluate: EvaluateParameters,
) -> tuple[pl.DataFrame, Metrics]:
    """Look for contents of the training data among those of the benchmarks.

    Args:
        evaluation_benchmarks: The benchmarks.
        items: The items table, which is what was trained on; None if there is none.
        ingest: Where its pictures are.
        evaluate: How near pictures must be.

    Returns:
        The leaks, and counts by benchmark and data set.
    """
    if items is None:
        log.warning("there is no items.parquet (kedro run --pipeline=ingest): nothing is known of the training data")
        return results.no_leaks(), {"training_data": "absent"}
    from unime_kedro.evaluation.leakage import find_leaks, fingerprint_training, leakage_counts

    training = fingerprint_training(items, resolve(str(ingest.image_root)), progress=progress)
    tables, counts = [results.no_leaks()], {}
    for name, loaded in evaluation_benchmarks.items():
        found = find_leaks(
            training,
            loaded.tasks,
            loaded.image_root,
            hash_distance=evaluate.leakage.hash_distance,
            progress=progress,
        )
        counts[name] = leakage_counts(found, loaded.tasks)
        tables.append(found.select(pl.lit(name).alias("benchmark"), pl.all()))
    return pl.concat(tables), {"training_data": f"{len(items):,} items", **counts}


def score(
    evaluation_benchmarks: benchmarks.Loaded, evaluate: EvaluateParameters, evaluation_folder: Path
) -> dict[str, models.Evaluated]:
    """Score every model on every benchmark (method section 5), or take what was scored before.

    Args:
        evaluation_benchmarks: The benchmarks.
        evaluate: Which models, how contents are put to them, how rerankers reorder.
        evaluation_folder: Keeps the results of all runs; what is in there is not computed again.

    Returns:
        Name -> what the model made of every benchmark.
    """
    return models.evaluate_models(evaluation_benchmarks, evaluate, evaluation_folder, progress)


def measure(
    evaluation_benchmarks: benchmarks.Loaded,
    evaluations: dict[str, models.Evaluated],
    leaks: pl.DataFrame,
    evaluate: EvaluateParameters,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, Metrics]:
    """Turn scored queries into tables and figures with intervals.

    Args:
        evaluation_benchmarks: The benchmarks.
        evaluations: What every model made of them.
        leaks: Queries that may be left out because of what was trained on.
        evaluate: Which of those; seed, resamples and level of intervals.

    Returns:
        The tables evaluated_queries, predictions, rankings, and the metrics (see :mod:`.evaluate.results`).
    """
    excluded = results.excluded_queries(leaks, evaluate.leakage.exclude)
    return (
        results.queries_table(evaluation_benchmarks, excluded),
        results.predictions_table(evaluations, excluded),
        results.rankings_table(evaluation_benchmarks, evaluations, excluded),
        results.metrics(evaluation_benchmarks, evaluations, excluded, evaluate),
    )
