"""What every training here adds to transformers' Trainer, whatever is trained.

Gradients are added up over passes of one step and exchanged between processes once; a training that is lost stops and
names its batch; figures are reported with the time that training alone took; checkpoints survive being killed.
"""

from __future__ import annotations

import json
import math
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from transformers import Trainer, TrainerCallback, TrainingArguments

from unime_kedro.atomic import atomic_write
from unime_kedro.errors import ModelError
from unime_kedro.learning.checkpoints import WEIGHTS, load_weights, mark_complete, save_weights
from unime_kedro.learning.run_folder import FAILED_BATCH

#: (step, values)
Report = Callable[[int, dict[str, float]], None]


class QueryBatch(Protocol):
    """One step's queries of one process."""

    @property
    def query_ids(self) -> NDArray[np.int64]:
        """Ids of the queries, (n,) int64."""


B = TypeVar("B", bound=QueryBatch)


class StepTrainer(Trainer, Generic[B]):
    """A Trainer whose steps are computed by :meth:`compute_step`.

    Args:
        model: The model, its trained parameters requiring gradients.
        args: ``per_device_train_batch_size`` queries per step and process.
        order: (steps, batch) what the collator is given for every step, over all processes.
        collator: From these numbers to a batch.
        stop_gradient_norm: A larger norm, before clipping, or one that is not finite stops the training.
        report: Called on process 0 with the figures of every ``logging_steps`` steps.
        callbacks: Further callbacks of transformers.
        section: Top-level key of the parameters, for messages.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        args: TrainingArguments,
        order: NDArray[np.int64],
        collator: Callable[[list[int]], B],
        *,
        stop_gradient_norm: float,
        report: Report,
        callbacks: list[TrainerCallback],
        section: str,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=order.ravel().tolist(),
            data_collator=lambda rows: {"batch": collator(rows)},
            callbacks=[*callbacks, _CompleteCheckpoints()],
        )
        self._stop_norm, self._report, self._section = stop_gradient_norm, report, section
        self._since = time.perf_counter()
        self._batch: B | None = None

    # ---------------------------------------------------------------- one step

    @abstractmethod
    def compute_step(self, model: torch.nn.Module, batch: B) -> torch.Tensor:
        """Add the gradients of this process's share of a batch, and return the loss.

        Called where no gradients are exchanged. The mean over processes is taken of gradients and losses.
        """

    @abstractmethod
    def rates(self, seconds: float) -> dict[str, float]:
        """Return what was done per second, and other figures, since this was called last."""

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute the loss of one batch and add its gradients."""
        model.train()
        self._batch = batch = inputs["batch"]
        with self._without_exchange(model):
            value = self.compute_step(model, batch)
        self._exchange_gradients(model)
        if not math.isfinite(float(value)):
            self._stop(f"the loss is {float(value)}", {"loss": float(value)})
        return value

    def _of_all(self, tensor: torch.Tensor, own: bool = False) -> torch.Tensor:
        """Return the rows of all processes, in their order; with ``own``, those of this process keep their graph."""
        tensor = tensor.to(self.args.device)
        if self.args.world_size == 1:
            return tensor
        gathered = [torch.empty_like(tensor) for _ in range(self.args.world_size)]
        dist.all_gather(gathered, tensor.detach().contiguous())
        if own:
            gathered[self.args.process_index] = tensor
        return torch.cat(gathered)

    def _without_exchange(self, model: torch.nn.Module) -> AbstractContextManager[Any]:
        """Keep DistributedDataParallel from exchanging gradients by itself.

        It does so in the backward pass of one chunk and expects a gradient for every parameter there. A chunk of words
        alone has none for the vision tower.
        """
        no_sync = getattr(model, "no_sync", None) if self._is_ddp(model) else None
        return no_sync() if no_sync is not None else nullcontext()

    def _is_ddp(self, model: torch.nn.Module) -> bool:
        return isinstance(model, torch.nn.parallel.DistributedDataParallel)

    def _exchange_gradients(self, model: torch.nn.Module) -> None:
        """Take the mean of the gradients over all processes; a parameter that had no part in the batch has zero.

        It has so with one process, too: the optimizer treats zero and none differently, and whether a batch holds a
        picture must not depend on how it is divided.
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self._is_ddp(model):
            for group in _buckets([p.grad for p in trained if p.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in group])
                dist.all_reduce(flat)
                flat /= self.args.world_size
                for gradient, value in zip(group, flat.split([g.numel() for g in group]), strict=True):
                    gradient.copy_(value.view_as(gradient))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm before clipping, and stop when it says that the training is lost."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = float(norm)
        if not math.isfinite(value) or value > self._stop_norm:
            self._stop(
                f"the gradient norm is {value:g}, {self._section}.stop_gradient_norm is {self._stop_norm:g}",
                {"gradient_norm": value},
            )
        return norm

    def _stop(self, reason: str, values: dict[str, float]) -> None:
        """Write down which queries were in the batch, and end the training."""
        assert self._batch is not None
        query_ids = self._of_all(torch.from_numpy(self._batch.query_ids)).tolist()
        step = self.state.global_step + 1
        file = Path(str(self.args.output_dir)) / FAILED_BATCH
        record = {"step": step, "reason": reason, "learning_rate": self._get_learning_rate(), "query_ids": query_ids}
        if self.is_world_process_zero():
            with atomic_write(file) as temporary:
                shown = {key: value if math.isfinite(value) else str(value) for key, value in values.items()}
                temporary.write_text(json.dumps(record | shown, indent=1) + "\n", encoding="utf-8")
        first, key = ", ".join(map(str, query_ids[:5])), self._section
        raise ModelError(
            f"step {step}: {reason}. The batch's {len(query_ids)} query ids ({first}, ...) are in {file}. Nothing of "
            f"this step was kept. Look at these queries; with a lower {key}.learning_rate or more {key}.warmup_steps "
            f"it is another training, which starts anew unless {key}.resume_from names a checkpoint of this one."
        )

    # ---------------------------------------------------------------- what is said

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report the figures since the last report."""
        super().log(logs, start_time)
        if "loss" not in logs or not self.is_world_process_zero():
            return  # transformers' summary at the end has no loss of a step
        seconds = time.perf_counter() - self._since
        self._since = time.perf_counter()
        values = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "gradient_norm": logs["grad_norm"],
            "seconds": seconds,
            **self.rates(seconds),
            "peak_memory_gb": peak_memory_gb(),
        }
        self._report(self.state.global_step, values)

    def start_clock(self) -> None:
        """Start measuring time: loading and connecting are over."""
        self._since = time.perf_counter()

    def without_clock(self, work: Callable[[], None]) -> None:
        """Do something that is no training, such as validation, without its time counting as such."""
        start = time.perf_counter()
        work()
        self._since += time.perf_counter() - start

    # ---------------------------------------------------------------- checkpoints

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        """Take how often to log and to save from the parameters: a checkpoint brings along what it was made with."""
        found = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)
        return found

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Write the trained weights of a checkpoint; the others are those of the model it started from."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.model, folder / WEIGHTS, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_weights(self.model if model is None else model, Path(resume_from_checkpoint), self._section)


class _CompleteCheckpoints(TrainerCallback):
    """Marks a checkpoint as complete when transformers has written all of it, on all processes."""

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Report before every checkpoint."""
        # The loss that is reported is a mean since the last report: where a training may go on later, it starts anew
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint that was just written."""
        if args.world_size > 1:
            dist.barrier()
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, state.global_step, device=args.device.type)


def peak_memory_gb() -> float:
    """Return the most memory used so far in GiB: of the GPU where there is one, else of this process."""
    import resource

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def _buckets(gradients: list[torch.Tensor], size: int = 1 << 24) -> list[list[torch.Tensor]]:
    """Divide gradients into groups of one type with about ``size`` numbers: one message each."""
    groups: list[list[torch.Tensor]] = []
    used = size
    for gradient in gradients:
        if used >= size or groups[-1][0].dtype != gradient.dtype:
            groups.append([])
            used = 0
        groups[-1].append(gradient)
        used += gradient.numel()
    return groups
