"""The tables and figures that come out of an evaluation."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation import leakage
from unime_kedro.evaluation.scores import benchmark_scores, query_measures
from unime_kedro.evaluation.scoring import PREDICTIONS_SCHEMA, Scored
from unime_kedro.evaluation.tasks import OwnCandidates, Task
from unime_kedro.parameters import EvaluateParameters
from unime_kedro.paths import in_project
from unime_kedro.pipelines.evaluate.benchmarks import Loaded
from unime_kedro.pipelines.evaluate.models import Evaluated

#: key of what is known of a model, beside its benchmarks
FACTS = "_"
_QUERY = ["benchmark", "dataset", "query_id"]
LEAKS_SCHEMA = {"benchmark": pl.String, **leakage.LEAKS_SCHEMA}
#: parameter -> kinds of leaks because of which a query is not scored
_EXCLUDED_KINDS = {"none": [], "exact": ["exact", "same_image"], "near": ["exact", "same_image", "near"]}


def no_leaks() -> pl.DataFrame:
    """Return an empty table of leaks."""
    return pl.DataFrame(schema=LEAKS_SCHEMA)


def excluded_queries(leaks: pl.DataFrame, exclude: str) -> pl.DataFrame:
    """Return the queries that are not scored because they, or their targets, were in the training data.

    Words alone never exclude a query: that ``a cat`` is an answer there and here is in the nature of answers.

    Args:
        leaks: The leaks table.
        exclude: ``none``; ``exact`` for those whose very picture was trained on, with whatever words; ``near`` for
            those with a picture that looks like one, too.

    Returns:
        benchmark, dataset, query_id, each once.
    """
    shown = leaks.filter(
        pl.col("kind").is_in(_EXCLUDED_KINDS[exclude]),
        pl.col("role").is_in(["query", "target"]),
        pl.col("modality") != "text",
        pl.col("query_id").is_not_null(),
    )
    return shown.select(_QUERY).unique().sort(_QUERY)


def predictions_table(evaluations: Mapping[str, Evaluated], excluded: pl.DataFrame) -> pl.DataFrame:
    """Return model, benchmark, and the predictions of each, models in their order."""
    parts = [
        scored.predictions.select(pl.lit(model).alias("model"), pl.lit(name).alias("benchmark"), *PREDICTIONS_SCHEMA)
        for model, evaluated in evaluations.items()
        for name, scored in evaluated.scored.items()
    ]
    table = pl.concat(parts).join(excluded, on=_QUERY, how="anti", maintain_order="left")
    if not len(table):
        raise DataError(
            "evaluate.leakage.exclude leaves no query of any benchmark: all of them were in the training data. Set it "
            "to none, or evaluate on other data."
        )
    return table


def rankings_table(benchmarks: Loaded, evaluations: Mapping[str, Evaluated], excluded: pl.DataFrame) -> pl.DataFrame:
    """Return model, benchmark, and the first candidates of every query with their words and pictures."""
    contents = _contents(benchmarks)
    parts = [
        _with_reranked(scored).select(pl.lit(model).alias("model"), pl.lit(name).alias("benchmark"), pl.all())
        for model, evaluated in evaluations.items()
        for name, scored in evaluated.scored.items()
    ]
    table = pl.concat(parts).join(excluded, on=_QUERY, how="anti", maintain_order="left")
    return table.join(contents, on=["benchmark", "dataset", "content_id"], how="left", maintain_order="left")


def _with_reranked(scored: Scored) -> pl.DataFrame:
    top = scored.top
    if "reranked_position" in top.columns:
        return top
    return top.with_columns(pl.lit(None, dtype=pl.Int32).alias("reranked_position"))


def _contents(benchmarks: Loaded) -> pl.DataFrame:
    parts = [
        one.contents.select(
            pl.lit(name).alias("benchmark"),
            pl.lit(one.dataset).alias("dataset"),
            "content_id",
            pl.col("text", "image").fill_null(""),
        )
        for name, loaded in benchmarks.items()
        for one in loaded.tasks
    ]
    return pl.concat(parts)


def queries_table(benchmarks: Loaded, excluded: pl.DataFrame) -> pl.DataFrame:
    """Return every evaluated query with its first right target: words, picture, and where pictures are."""
    parts = [
        _target(one).select(pl.lit(name).alias("benchmark"), pl.lit(one.dataset).alias("dataset"), pl.all())
        for name, loaded in benchmarks.items()
        for one in sorted(loaded.tasks, key=lambda task: task.dataset)
    ]
    contents = _contents(benchmarks)
    roots = pl.DataFrame(
        {"benchmark": list(benchmarks), "image_root": [in_project(b.image_root) for b in benchmarks.values()]}
    )
    key = ["benchmark", "dataset"]
    targets = contents.rename({"content_id": "target", "text": "target_text", "image": "target_image"})
    table = pl.concat(parts).join(excluded, on=_QUERY, how="anti", maintain_order="left")
    table = table.join(contents, on=[*key, "content_id"], how="left", maintain_order="left")
    table = table.join(targets, on=[*key, "target"], how="left", maintain_order="left")
    table = table.join(roots, on="benchmark", how="left", maintain_order="left")
    return table.select(*_QUERY, "text", "image", "target_text", "target_image", "image_root")


def _target(task: Task) -> pl.DataFrame:
    """Return query_id, content_id and the content of the first right target."""
    queries = task.queries.sort("query_id")
    if isinstance(task, OwnCandidates):
        return queries.select("query_id", "content_id", target=pl.col("candidates").list.first())
    first = task.targets.group_by("group", maintain_order=True).agg(target=pl.col("content_id").first())
    found = queries.join(first, on="group", how="left", maintain_order="left")
    return found.select("query_id", "content_id", "target")


def metrics(
    benchmarks: Loaded, evaluations: Mapping[str, Evaluated], excluded: pl.DataFrame, evaluate: EvaluateParameters
) -> dict[str, Any]:
    """Return model -> benchmark -> data set or mean -> measure -> value, low, high, n; and facts under ``_``."""
    counts = _counts(excluded)
    found: dict[str, Any] = {}
    for model, evaluated in evaluations.items():
        found[model] = {
            name: _scores(name, benchmarks, scored, excluded, evaluate) for name, scored in evaluated.scored.items()
        }
        facts = dict(evaluated.facts)
        facts["missing"] = {name: list(one.missing) for name, one in benchmarks.items() if one.missing}
        facts["excluded"] = {name: counts[name] for name in benchmarks if name in counts}
        found[model][FACTS] = facts
    return found


def _scores(
    name: str, benchmarks: Loaded, scored: Scored, excluded: pl.DataFrame, evaluate: EvaluateParameters
) -> dict[str, Any]:
    benchmark = benchmarks[name].benchmark
    measured = query_measures(scored.predictions, scored.top)
    out = excluded.filter(pl.col("benchmark") == name)
    return benchmark_scores(
        measured.join(out, on=["dataset", "query_id"], how="anti", maintain_order="left"),
        {one.name: one.metric for one in benchmark.datasets},
        {mean.name: mean.members for mean in benchmark.means},
        level=evaluate.level,
        resamples=evaluate.resamples,
        seed=evaluate.seed,
    )


def _counts(excluded: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return benchmark -> data set -> queries that were left out."""
    found: dict[str, dict[str, int]] = {}
    rows: Iterable[Any] = excluded.group_by("benchmark", "dataset").len().sort("benchmark", "dataset").iter_rows()
    for benchmark, dataset, n in rows:
        found.setdefault(benchmark, {})[dataset] = n
    return found
