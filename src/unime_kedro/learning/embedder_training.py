"""Puts the training of an embedder together, and saves what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unime_kedro.learning.building import Training, load_trainable, seed_process
from unime_kedro.learning.run_folder import Job, read_tables
from unime_kedro.parameters import TrainParameters

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from unime_kedro.learning.trainable import TrainableReport
    from unime_kedro.mllm.adapters.base import BackboneAdapter


def build(
    job: Job, folder: Path, arguments: TrainingArguments, report: Callable[[int, dict[str, float]], None]
) -> Training:
    """Load the model and put everything together; nothing is trained yet."""
    from unime_kedro.learning.batches import Collator
    from unime_kedro.learning.model import EmbeddingModel
    from unime_kedro.learning.objective import Objective, needs_negatives
    from unime_kedro.learning.rows import TrainingRows, batch_order
    from unime_kedro.learning.trainer import EmbedderTrainer
    from unime_kedro.learning.validation import Validation
    from unime_kedro.mllm.content import contents_of
    from unime_kedro.mllm.embedding import Embedder

    p = job.train
    assert isinstance(p, TrainParameters)
    training, contents, validation = read_tables(folder)
    rows = TrainingRows.from_table(training, p.negatives if needs_negatives(p.loss.kind) else 0)
    order = batch_order(len(rows), batch=p.batch, steps=p.steps, seed=p.seed)
    adapter, trainable = load_trainable(p)
    embedder = Embedder(adapter, prompt=p.prompt, max_tokens=p.max_tokens, batch_tokens=16384)
    sides = dict(zip(contents["item_id"].sort(), contents_of(contents, job.image_root), strict=True))
    collator = Collator(embedder, rows, sides, chunk=p.chunk, cache_gb=p.cache_gb)
    watch = Validation(validation, embedder, job.validation_root, every=p.validation.every, report=report)
    trainer = EmbedderTrainer(
        EmbeddingModel(adapter, p.cache_gb),
        arguments,
        order,
        collator,
        Objective(**p.loss.model_dump()),
        stop_gradient_norm=p.stop_gradient_norm,
        report=report,
        callbacks=[watch],
    )
    watch.trainer = trainer
    seed_process(p, arguments)
    return Training(trainer, lambda: _save(job, folder, p, adapter, trainable))


def _save(job: Job, folder: Path, p: TrainParameters, adapter: BackboneAdapter, trainable: TrainableReport) -> None:
    from unime_kedro.learning.embedder_card import trained_card
    from unime_kedro.learning.export import save_embedder
    from unime_kedro.learning.record import run_record

    record = run_record(job, folder, trainable)
    save_embedder(
        job.output,
        adapter,
        base=p.model,
        revision=p.revision,
        peft=trainable.peft,
        merge=p.merge,
        prompt=p.prompt,
        max_tokens=p.max_tokens,
        card=trained_card(record),
        record=record,
    )
