"""One process of a training: ``python -m unime_kedro.learning.worker <run folder>``, or under torchrun.

It knows nothing of Kedro and MLflow; what it says goes into files of the run folder (see :mod:`.run_folder`).
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.learning.run_folder import Job, read_job, read_tables, write_finished
from unime_kedro.learning.worker_errors import recorded
from unime_kedro.learning.worker_life import die_with_launcher, only_writer

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from unime_kedro.learning.trainable import TrainableReport
    from unime_kedro.learning.trainer import EmbedderTrainer
    from unime_kedro.mllm.embedding import Embedder

log = logging.getLogger(__name__)


def main(folder: Path) -> None:
    """Train as the folder's ``job.json`` says, from the last checkpoint there is, and write the model."""
    rank = int(os.environ.get("RANK", "0"))
    die_with_launcher()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s rank {rank} %(message)s", stream=sys.stderr)
    with recorded(folder, rank), only_writer(folder) if rank == 0 else nullcontext():
        train(folder)


def train(folder: Path) -> None:
    """Do all of a training's work in this process.

    Args:
        folder: Folder of the run.
    """
    from unime_kedro.learning.checkpoints import facts_of, last_checkpoint
    from unime_kedro.learning.events import EVENTS, EventLog

    job = read_job(folder)
    arguments = training_arguments(job, folder)
    if arguments.process_index == 0:
        last_checkpoint(folder)  # removes what is incomplete, before others look
    _wait_for_all(arguments)
    start = checkpoint_to_start_from(job, folder, arguments)
    kept = facts_of(start)["step"] if start else 0
    events = EventLog(folder / EVENTS, keep_to=kept) if arguments.process_index == 0 else None
    if start is not None:
        log.info("going on from %s", start)

    def report(step: int, values: dict[str, float]) -> None:
        if events is not None:
            events.write(step, values)

    built = build_trainer(job, folder, arguments, report)
    built.trainer.train(resume_from_checkpoint=str(start) if start else None)
    if arguments.process_index == 0:
        write_model(job, folder, built)
    _wait_for_all(arguments)
    if arguments.world_size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()


def checkpoint_to_start_from(job: Job, folder: Path, arguments: TrainingArguments) -> Path | None:
    """Return this training's own last checkpoint, else the one that was asked for, if any.

    Raises:
        ModelError: If it is none, has as many steps as are wanted, or was written on another kind of device.
    """
    from unime_kedro.learning.checkpoints import facts_of, is_complete, last_checkpoint
    from unime_kedro.paths import resolve

    own = last_checkpoint(folder)
    given = resolve(job.train.resume_from) if job.train.resume_from else None
    start = own or given
    if start is None:
        return None
    facts = facts_of(start)
    if not is_complete(start):
        raise ModelError(f"{start} is not complete, files of it are missing; set train.resume_from to another one.")
    if own is None and facts["step"] >= job.train.steps:
        raise ModelError(
            f"{start} was written after {facts['step']} steps, train.steps is {job.train.steps}: there is nothing left "
            "to train. Raise train.steps, or set train.resume_from to null."
        )
    if facts.get("device") not in (None, arguments.device.type):
        raise ModelError(
            f"{start} was written on {facts['device']}, this machine trains on {arguments.device.type}; the result "
            f"would be neither one's. Set train.device, or remove {folder} to start anew."
        )
    return start


def training_arguments(job: Job, folder: Path) -> TrainingArguments:
    """Return transformers' arguments; making them opens the connections between processes and picks the GPU.

    Raises:
        ConfigurationError: If the batch cannot be divided among the processes, or an argument is refused.
    """
    import torch
    from transformers import TrainingArguments

    p = job.train
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if p.batch % processes:
        raise ConfigurationError(
            f"train.batch = {p.batch} cannot be divided among {processes} processes; expected a multiple of that."
        )
    gpu = torch.cuda.is_available() and p.device != "cpu"
    own = {
        "output_dir": str(folder),
        "per_device_train_batch_size": p.batch // processes,
        "max_steps": p.steps,
        "learning_rate": p.learning_rate,
        "lr_scheduler_type": p.schedule,
        "warmup_steps": p.warmup_steps,
        "weight_decay": p.weight_decay,
        "max_grad_norm": p.max_gradient_norm,
        "seed": p.seed,
        "bf16": model_precision(p.dtype, p.tuning, gpu)[1],
        "use_cpu": not gpu,
        "logging_steps": p.log_every,
        "save_steps": p.checkpoint_every,
        "dataloader_num_workers": p.image_workers,
        "report_to": [],
    }
    usual: dict[str, Any] = {
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "dataloader_drop_last": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "ddp_timeout": 7200,
    }
    if processes > 1 and not gpu:
        usual["ddp_backend"] = "gloo"
    try:
        arguments = TrainingArguments(**(usual | p.arguments | own))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"train.arguments: transformers.TrainingArguments refuses them: {error}") from error
    # One process takes one GPU. With several in sight transformers would copy the model to all of them (DataParallel)
    # and multiply the batch.
    if arguments.world_size == 1:
        arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def model_precision(dtype: str, tuning: str, gpu: bool) -> tuple[str, bool]:
    """Return the type of the weights, and whether arithmetic is bfloat16 where that is safe (autocast).

    Weights that are trained stay float32: steps of 1e-4 vanish in bfloat16. With LoRA the base can be bfloat16, its
    adapters are float32.

    Raises:
        ConfigurationError: For float16, whose gradients would need scaling.
    """
    if dtype == "float16":
        raise ConfigurationError("train.dtype = float16 is not supported; expected auto, bfloat16 or float32.")
    mixed = dtype == "bfloat16" or (dtype == "auto" and gpu)
    return ("bfloat16" if mixed and tuning == "lora" else "float32"), mixed


class Built(NamedTuple):
    """What a training is put together of.

    Attributes:
        trainer: Trains.
        embedder: Embeds with the same model.
        trainable: Which parameters are trained.
    """

    trainer: EmbedderTrainer
    embedder: Embedder
    trainable: TrainableReport


def build_trainer(
    job: Job, folder: Path, arguments: TrainingArguments, report: Callable[[int, dict[str, float]], None]
) -> Built:
    """Load the model and put everything together; nothing is trained yet."""
    import torch

    from unime_kedro.learning.batches import Collator
    from unime_kedro.learning.model import EmbeddingModel
    from unime_kedro.learning.objective import Objective, needs_negatives
    from unime_kedro.learning.rows import TrainingRows, batch_order
    from unime_kedro.learning.trainable import make_trainable
    from unime_kedro.learning.trainer import EmbedderTrainer
    from unime_kedro.learning.validation import Validation
    from unime_kedro.mllm.adapters import load_adapter
    from unime_kedro.mllm.content import ModelSpec, contents_of
    from unime_kedro.mllm.embedding import Embedder

    p = job.train
    training, contents, validation = read_tables(folder)
    rows = TrainingRows.from_table(training, p.negatives if needs_negatives(p.loss.kind) else 0)
    order = batch_order(len(rows), batch=p.batch, steps=p.steps, seed=p.seed)
    gpu = torch.cuda.is_available() and p.device != "cpu"
    dtype, _ = model_precision(p.dtype, p.tuning, gpu)
    spec = ModelSpec(
        p.model, p.revision, "cuda" if gpu else "cpu", dtype, p.min_pixels, p.max_pixels, threads=p.threads
    )
    adapter = load_adapter(spec)
    trainable = make_trainable(
        adapter, tuning=p.tuning, freeze_vision=p.freeze_vision, seed=p.seed, **p.lora.model_dump()
    )
    log.info("%s of %s parameters are trained", f"{trainable.trainable:,}", f"{trainable.total:,}")
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
    # transformers gives all processes one seed; each is to drop other numbers (LoRA)
    torch.manual_seed(p.seed + arguments.process_index)
    return Built(trainer, embedder, trainable)


def _wait_for_all(arguments: TrainingArguments) -> None:
    if arguments.world_size > 1:
        import torch.distributed as dist

        dist.barrier()


def write_model(job: Job, folder: Path, built: Built) -> None:
    """Save the trained model with its card, and remove the checkpoints, which nothing needs any more."""
    from unime_kedro.learning.embedder_card import trained_card
    from unime_kedro.learning.export import save_embedder
    from unime_kedro.learning.record import run_record
    from unime_kedro.mllm.fingerprint import folder_fingerprint

    record = run_record(job, folder, built.trainable)
    p = job.train
    save_embedder(
        job.output,
        built.embedder.adapter,
        base=p.model,
        revision=p.revision,
        peft=built.trainable.peft,
        merge=p.merge,
        prompt=p.prompt,
        max_tokens=p.max_tokens,
        card=trained_card(record),
        record=record,
    )
    write_finished(folder, folder_fingerprint(job.output))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m unime_kedro.learning.worker <run folder>")
    main(Path(sys.argv[1]))
