"""Training the embedder: a gradient cache, and a loss over all processes.

Optimizer, schedule, clipping, mixed precision, checkpoints and the wrapping of the model for several processes are
transformers'. What is ours is one step: a loss over the embeddings of the whole batch cannot be computed row by row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainingArguments

from unime_kedro.learning.batches import Batch, Collator
from unime_kedro.learning.gradient_cache import cached_backward
from unime_kedro.learning.model import EmbeddingModel
from unime_kedro.learning.objective import Objective
from unime_kedro.learning.step_trainer import Report, StepTrainer


class Done(NamedTuple):
    """What was done since the last report, by this process."""

    queries: int = 0
    pairs: int = 0
    encoded: int = 0
    contents: int = 0


class EmbedderTrainer(StepTrainer[Batch]):
    """Trains an :class:`EmbeddingModel`.

    Args:
        model: The model, its trained parameters requiring gradients.
        args: ``per_device_train_batch_size`` queries per step and process.
        order: (steps, batch) rows of every step, over all processes.
        collator: From rows to a batch.
        objective: The loss (see :mod:`unime_kedro.learning.objective`).
        stop_gradient_norm: A larger norm, before clipping, or one that is not finite stops the training.
        report: Called on process 0 with the figures of every ``logging_steps`` steps.
        callbacks: Further callbacks of transformers.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        args: TrainingArguments,
        order: NDArray[np.int64],
        collator: Collator,
        objective: Objective,
        *,
        stop_gradient_norm: float,
        report: Report,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(
            model,
            args,
            order,
            collator,
            stop_gradient_norm=stop_gradient_norm,
            report=report,
            callbacks=callbacks,
            section="train",
        )
        self._objective, self._done = objective, Done()

    def compute_step(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute the loss of one batch and add its gradients; see :mod:`unime_kedro.learning.gradient_cache`."""
        self.accelerator.unwrap_model(model).begin_step()
        places = torch.from_numpy(batch.places).to(self.args.device)
        scores, item_ids = self._of_all(torch.from_numpy(batch.scores)), self._of_all(torch.from_numpy(batch.item_ids))
        n_processes = self.args.world_size

        def loss(vectors: torch.Tensor) -> torch.Tensor:
            value = self._objective(self._of_all(vectors[places], own=True), scores, item_ids)
            # every process has the gradient of its own rows alone, and their mean over processes is taken
            return n_processes * value

        value = cached_backward(model, batch.chunks, loss) / n_processes
        self._count(batch)
        return value

    def _count(self, batch: Batch) -> None:
        done = self._done
        n, width = batch.places.shape
        self._done = Done(
            done.queries + n,
            done.pairs + n * (width - 1),
            done.encoded + batch.distinct,
            done.contents + batch.places.size,
        )

    def rates(self, seconds: float) -> dict[str, float]:
        """Return queries and pairs per second, and the share of contents that need no encoding."""
        done, self._done = self._done, Done()
        return {
            "queries_per_second": done.queries * self.args.world_size / seconds,
            "pairs_per_second": done.pairs * self.args.world_size / seconds,
            "encodes_saved": 1 - done.encoded / max(done.contents, 1),
        }
