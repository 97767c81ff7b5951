"""One process of a training: ``python -m unime_kedro.learning.worker <run folder>``, or under torchrun.

It knows nothing of Kedro and MLflow; what it says goes into files of the run folder (see :mod:`.run_folder`).
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.learning.run_folder import Job, read_job, write_finished
from unime_kedro.learning.worker_errors import recorded
from unime_kedro.learning.worker_life import die_with_launcher, only_writer

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from unime_kedro.learning.building import Training

log = logging.getLogger(__name__)

#: what is trained -> the module whose ``build`` puts its training together
KINDS = {
    "embedder": "unime_kedro.learning.embedder_training",
    "reranker": "unime_kedro.learning.reranking.training",
}


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
    kept = facts_of(start, job.train.section)["step"] if start else 0
    events = EventLog(folder / EVENTS, keep_to=kept) if arguments.process_index == 0 else None
    if start is not None:
        log.info("going on from %s", start)

    def report(step: int, values: dict[str, float]) -> None:
        if events is not None:
            events.write(step, values)

    training: Training = importlib.import_module(KINDS[job.kind]).build(job, folder, arguments, report)
    training.trainer.train(resume_from_checkpoint=str(start) if start else None)
    if arguments.process_index == 0:
        _write_model(job, folder, training)
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

    own, section = last_checkpoint(folder), job.train.section
    given = resolve(job.train.resume_from) if job.train.resume_from else None
    start = own or given
    if start is None:
        return None
    facts = facts_of(start, section)
    if not is_complete(start):
        raise ModelError(f"{start} is not complete, files of it are missing; set {section}.resume_from to another one.")
    if own is None and facts["step"] >= job.train.steps:
        raise ModelError(
            f"{start} was written after {facts['step']} steps, {section}.steps is {job.train.steps}: there is nothing "
            f"left to train. Raise {section}.steps, or set {section}.resume_from to null."
        )
    if facts.get("device") not in (None, arguments.device.type):
        raise ModelError(
            f"{start} was written on {facts['device']}, this machine trains on {arguments.device.type}; the result "
            f"would be neither one's. Set {section}.device, or remove {folder} to start anew."
        )
    return start


def training_arguments(job: Job, folder: Path) -> TrainingArguments:
    """Return transformers' arguments; making them opens the connections between processes and picks the GPU.

    Raises:
        ConfigurationError: If the batch cannot be divided among the processes, or an argument is refused.
    """
    import torch
    from transformers import TrainingArguments

    from unime_kedro.learning.building import model_precision

    p = job.train
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if p.batch % processes:
        raise ConfigurationError(
            f"{p.section}.batch = {p.batch} cannot be divided among {processes} processes; expected a multiple of that."
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
        "bf16": model_precision(p, gpu)[1],
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
        raise ConfigurationError(
            f"{p.section}.arguments: transformers.TrainingArguments refuses them: {error}"
        ) from error
    # One process takes one GPU. With several in sight transformers would copy the model to all of them (DataParallel)
    # and multiply the batch.
    if arguments.world_size == 1:
        arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _wait_for_all(arguments: TrainingArguments) -> None:
    if arguments.world_size > 1:
        import torch.distributed as dist

        dist.barrier()


def _write_model(job: Job, folder: Path, training: Training) -> None:
    """Save the trained model with its card, and remove the checkpoints, which nothing needs any more."""
    from unime_kedro.mllm.fingerprint import folder_fingerprint

    training.save()
    write_finished(folder, folder_fingerprint(job.output))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m unime_kedro.learning.worker <run folder>")
    main(Path(sys.argv[1]))
