"""Nodes of pipeline ``rerank``."""

import logging
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.learning.run_folder import Job, write_job
from unime_kedro.parameters import DemoParameters, IngestParameters, RerankParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.train import jobs
from unime_kedro.progress import progress

log = logging.getLogger(__name__)

History = list[dict[str, Any]]

#: figures of a step whose mean over the training is a metric of it, weighted by time
_RATES = ("queries_per_second", "messages_per_second", "tokens_per_second")


def prepare_reranking(
    negatives: pl.DataFrame,
    queries: pl.DataFrame,
    items: pl.DataFrame,
    judge_scores: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    rerank: RerankParameters,
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Put every query with its positive and its hardest mined negatives into a row, and hold some out for validation.

    Args:
        negatives: The negatives table.
        queries: The queries table.
        items: The items table.
        judge_scores: The judge_scores table.
        judge_origin: What the scores were made from.
        ingest: Where pictures are.
        rerank: How many negatives are used, which queries are held out.

    Returns:
        The reranking table, and counts.

    Raises:
        DataError: If tables do not belong together, no query has a mined negative, a score is no number in [0, 1], or
            a picture is missing.
    """
    from unime_kedro.evaluation.held_out import choose_validation
    from unime_kedro.mining.lineage import check_lineage, corpus_digest, table_digest
    from unime_kedro.mining.reranking import reranking_table

    current = {"corpus": corpus_digest(items, queries), "judge_scores": table_digest(judge_scores)}
    check_lineage(judge_origin, current, "judge_scores.parquet", "kedro run --pipelines=pool,judge,select")
    mask = choose_validation(queries["dataset"], queries["item_id"], n=rerank.validation.queries, seed=rerank.seed)
    table, metrics = reranking_table(
        negatives,
        queries,
        judge_scores,
        n_negatives=rerank.negatives,
        fallback=rerank.fallback,
        validation=queries["query_id"].filter(pl.Series(mask)),
    )
    jobs.check_pictures(table, items, resolve(ingest.image_root))
    return table, metrics


def train_reranker(
    reranking: pl.DataFrame,
    items: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    rerank: RerankParameters,
    reranker_training_folder: Path,
    reranker_folder: Path,
) -> tuple[dict[str, Any], History, dict[str, float]]:
    """Train the reranker in processes of its own (method section 4), or take it as it is if this was done before.

    Args:
        reranking: The reranking table.
        items: The items table.
        judge_origin: What the scores were made from, and with which judge.
        ingest: Where pictures are.
        demo: Where mini-MMEB is.
        rerank: The parameters.
        reranker_training_folder: Receives a folder with checkpoints and figures.
        reranker_folder: Receives the model.

    Returns:
        Which model it is, its figures by step, and metrics.

    Raises:
        UnimeError: What the first process that failed said.
    """
    from unime_kedro.learning.events import EVENTS, history_of, read_events
    from unime_kedro.learning.launch import run_training
    from unime_kedro.tracking.live import LiveHistory

    jobs.check_hardware(rerank)
    job = _job(reranking, items, judge_origin, ingest, demo, rerank, reranker_folder)
    folder = reranker_training_folder / job.identity[:16]
    done = jobs.finished(job, folder)
    if done:
        log.info("%s is this very training's model already; remove the folder to train again", reranker_folder)
    else:
        write_job(folder, job, reranking, items)
        live = LiveHistory("rerank")
        with progress("training", rerank.steps, "steps") as bar, live:

            def show(event: dict[str, Any]) -> None:
                bar.advance(max(0, event["step"] - bar.done))
                live.event(event)

            with jobs.failed_batch_kept(folder):
                run_training(folder, **rerank.distributed.model_dump(), section=rerank.section, on_event=show)
    history = history_of(read_events(folder / EVENTS))
    return jobs.model_reference(job, folder), history, {**summary(history), "reused": int(done)}


def _job(
    reranking: pl.DataFrame,
    items: pl.DataFrame,
    judge_origin: dict[str, str],
    ingest: IngestParameters,
    demo: DemoParameters,
    rerank: RerankParameters,
    output: Path,
) -> Job:
    """Return what is to be done, named after everything that the weights depend on."""
    from unime_kedro.mllm.adapters import fingerprint_of

    fingerprint = fingerprint_of(rerank.model, rerank.revision)
    identity = jobs.training_identity(reranking, items, [], rerank, fingerprint)
    record = jobs.data_record(reranking, judge_origin, ingest, demo, rerank, fingerprint)
    image_root = resolve(ingest.image_root)
    return Job(rerank, identity, output, image_root, image_root, record)


def summary(history: History) -> dict[str, float]:
    """Return the metrics of a training from its figures by step."""
    from unime_kedro.learning.record import MAIN

    trained = [row for row in history if "loss" in row]
    found: dict[str, float] = {"steps": history[-1]["step"] if history else 0}
    if history and history[0]["step"] == 0:
        found |= {f"{key}_before": history[0][key] for key in MAIN if key in history[0]}
    if trained:
        found |= {key: trained[-1][key] for key in ("loss", "loss_pairwise", "loss_listwise") if key in trained[-1]}
        found["seconds"] = sum(row["seconds"] for row in trained)
        for name in _RATES:
            found[name] = sum(row[name] * row["seconds"] for row in trained) / found["seconds"]
        found["peak_memory_gb"] = max(row["peak_memory_gb"] for row in trained)
    for row in history:  # the last value of each counts
        found |= {key: value for key, value in row.items() if key.startswith("validation_")}
    return found
