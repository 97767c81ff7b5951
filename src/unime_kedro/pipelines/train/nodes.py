"""Nodes of pipeline ``train``."""

import logging
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.parameters import DemoParameters, IngestParameters, TrainParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.train import jobs
from unime_kedro.progress import progress

log = logging.getLogger(__name__)

History = list[dict[str, Any]]


def prepare(
    negatives: pl.DataFrame,
    queries: pl.DataFrame,
    items: pl.DataFrame,
    judge_scores: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    train: TrainParameters,
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Put every query with its positive, negatives and scores into a row, and hold some out for validation.

    Args:
        negatives: The negatives table.
        queries: The queries table.
        items: The items table.
        judge_scores: The judge_scores table.
        judge_origin: What the scores were made from.
        ingest: Where pictures are.
        demo: Where mini-MMEB is.
        train: How many negatives are used, which queries are held out.

    Returns:
        The training table, and counts.

    Raises:
        DataError: If tables do not belong together, negatives are too few, a score is no number in [0, 1], or a
            picture is missing.
    """
    from unime_kedro.evaluation.held_out import choose_validation
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mining.training import training_table

    current = {"corpus": corpus_digest(items, queries), "judge_scores": table_digest(judge_scores)}
    check_lineage(judge_origin, current, "judge_scores.parquet", "kedro run --pipelines=pool,judge,select")
    held_out: pl.Series = queries["query_id"].clear()
    if jobs.validation_root(train, ingest, demo) is None and train.validation.queries:
        mask = choose_validation(queries["dataset"], queries["item_id"], n=train.validation.queries, seed=train.seed)
        held_out = queries["query_id"].filter(pl.Series(mask))
    table, metrics = training_table(
        negatives,
        queries,
        judge_scores,
        n_negatives=train.negatives,
        fallback=train.fallback,
        validation=held_out,
    )
    jobs.check_pictures(table, items, resolve(ingest.image_root))
    return table, metrics


def train(
    training: pl.DataFrame,
    items: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    train: TrainParameters,
    training_folder: Path,
    trained_folder: Path,
) -> tuple[dict[str, Any], History, dict[str, float]]:
    """Train the embedder in processes of its own (method section 3), or take it as it is if this was done before.

    Args:
        training: The training table.
        items: The items table.
        judge_origin: What the scores were made from, and with which judge.
        ingest: Where pictures are.
        demo: Where mini-MMEB is.
        train: The parameters.
        training_folder: Receives a folder with checkpoints and figures.
        trained_folder: Receives the model.

    Returns:
        Which model it is, its figures by step, and metrics.

    Raises:
        UnimeError: What the first process that failed said.
    """
    from unime_kedro.learning.events import EVENTS, history_of, read_events
    from unime_kedro.learning.launch import run_training
    from unime_kedro.tracking.live import LiveHistory

    jobs.check_hardware(train)
    job, folder, done = jobs.make_job(
        training, items, judge_origin, ingest, demo, train, training_folder, trained_folder
    )
    if done:
        log.info("%s is this very training's model already; remove the folder to train again", trained_folder)
    else:
        live = LiveHistory("train")
        with progress("training", train.steps, "steps") as bar, live:

            def show(event: dict[str, Any]) -> None:
                bar.advance(max(0, event["step"] - bar.done))
                live.event(event)

            with jobs.failed_batch_kept(folder):
                run_training(folder, **train.distributed.model_dump(), on_event=show)
    history = history_of(read_events(folder / EVENTS))
    return jobs.model_reference(job, folder), history, {**jobs.summary(history), "reused": int(done)}


def measure_trained(
    trained_model: dict[str, Any], ingest: IngestParameters, demo: DemoParameters, train: TrainParameters
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Measure the trained model on mini-MMEB, where that is what was mined; nothing elsewhere.

    Args:
        trained_model: Where the model is.
        ingest: Whose pairs were mined.
        demo: Where mini-MMEB is.
        train: How contents are put to the model.

    Returns:
        One row per evaluation query, and metrics (see :func:`.evaluation.mini_mmeb.measure_mini_mmeb`).
    """
    from unime_kedro.evaluation.embedders import PREDICTIONS_SCHEMA
    from unime_kedro.evaluation.mini_mmeb import measure_mini_mmeb
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec
    from unime_kedro.mllm.embedding import Embedder

    nothing: tuple[pl.DataFrame, dict[str, float]] = (
        pl.DataFrame(schema={"benchmark": pl.String, **PREDICTIONS_SCHEMA}),
        {},
    )
    if not jobs.is_embedded_corpus(ingest, demo) or not any(demo.eval_queries.values()):
        return nothing
    if not (resolve(demo.root) / "eval").is_dir():
        log.warning("there is no mini-MMEB at %s to measure the model on", demo.root)
        return nothing
    # as it was validated: adding adapters to bfloat16 weights would round them away
    dtype = "float32" if train.dtype == "auto" else train.dtype
    spec = ModelSpec(
        trained_model["folder"], None, train.device, dtype, train.min_pixels, train.max_pixels, train.threads
    )
    embedder = Embedder(load_adapter(spec), prompt=train.prompt, max_tokens=train.max_tokens, batch_tokens=16384)
    return measure_mini_mmeb(resolve(demo.root), embedder.embed, seed=train.seed, progress=progress)
