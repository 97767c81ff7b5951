"""Puts the training of a reranker together, and saves what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unime_kedro.learning.building import Training, load_trainable, seed_process
from unime_kedro.learning.run_folder import Job, read_tables
from unime_kedro.parameters import RerankParameters

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from unime_kedro.learning.trainable import TrainableReport
    from unime_kedro.mllm.adapters.base import BackboneAdapter


def build(
    job: Job, folder: Path, arguments: TrainingArguments, report: Callable[[int, dict[str, float]], None]
) -> Training:
    """Load the model and put everything together; nothing is trained yet."""
    from unime_kedro.learning.reranking.batches import Collator, Pictures, numbered
    from unime_kedro.learning.reranking.model import RerankerModel
    from unime_kedro.learning.reranking.prompts import MessageEncoder
    from unime_kedro.learning.reranking.rows import RerankingRows
    from unime_kedro.learning.reranking.trainer import RerankerTrainer
    from unime_kedro.learning.reranking.validation import Validation
    from unime_kedro.learning.rows import batch_order
    from unime_kedro.mllm.content import contents_of

    p = job.train
    assert isinstance(p, RerankParameters)
    table, contents, _ = read_tables(folder)
    rows, held_out = (RerankingRows.from_table(table, split) for split in ("train", "validation"))
    order = batch_order(len(rows), batch=p.batch, steps=p.steps, seed=p.seed, section=p.section)
    adapter, trainable = load_trainable(p, head=True)
    sides = dict(zip(contents["item_id"].sort(), contents_of(contents, job.image_root), strict=True))
    listwise = p.listwise_weight > 0
    collator = Collator(
        MessageEncoder(adapter, max_tokens=p.max_tokens),
        rows,
        sides,
        Pictures(adapter, p.cache_gb),
        listwise=listwise,
        chunk=p.chunk,
        seed=p.seed,
        fewest=p.fewest_negatives,
    )
    watch = Validation(
        held_out,
        table.filter(pl.col("split") == "validation").sort("query_id")["dataset"].to_numpy(),
        sides,
        adapter,
        every=p.validation.every,
        max_tokens=p.max_tokens,
        listwise=listwise,
        seed=p.seed,
        report=report,
    )
    trainer = RerankerTrainer(
        RerankerModel(adapter, p.cache_gb),
        arguments,
        numbered(order, len(rows)),
        collator,
        listwise_weight=p.listwise_weight,
        stop_gradient_norm=p.stop_gradient_norm,
        report=report,
        callbacks=[watch],
    )
    watch.trainer = trainer
    seed_process(p, arguments)
    return Training(trainer, lambda: _save(job, folder, p, adapter, trainable))


def _save(job: Job, folder: Path, p: RerankParameters, adapter: BackboneAdapter, trainable: TrainableReport) -> None:
    from unime_kedro.learning.export import save_model
    from unime_kedro.learning.record import run_record
    from unime_kedro.learning.reranking.card import reranker_card

    record = run_record(job, folder, trainable)
    save_model(
        job.output,
        adapter,
        base=p.model,
        revision=p.revision,
        peft=trainable.peft,
        merge=p.merge,
        card=reranker_card(record),
        record=record,
        section=p.section,
    )
