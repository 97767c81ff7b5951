"""Training the reranker: next-token cross entropy on the answers alone, over any number of passes per step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainingArguments

from unime_kedro.learning.reranking.batches import Batch, Collator
from unime_kedro.learning.reranking.model import RerankerModel
from unime_kedro.learning.step_trainer import Report, StepTrainer


class Done(NamedTuple):
    """What was done since the last report: by this process, and the sums of the losses over all."""

    steps: int = 0
    queries: int = 0
    messages: int = 0
    tokens: int = 0
    pairwise: float = 0.0
    listwise: float = 0.0


class RerankerTrainer(StepTrainer[Batch]):
    """Trains a :class:`RerankerModel` (method section 4; UniME-V2, L = L_pair + L_list).

    L_pair is the mean, over the pairwise messages of a step and all processes, of the negative log-likelihood of the
    whole answer; L_list that of the listwise messages. Within an answer the tokens' cross entropies are summed, not
    averaged: what stands around the number is the same in every answer and learned in a few steps, and in a mean it
    would divide the weight of the one token that decides by however many tokens the tokenizer makes of it. The mean
    over messages makes the learning rate independent of the batch, and equals one pass over the whole batch however
    it is divided into chunks and among processes.

    Args:
        model: The model, its trained parameters requiring gradients.
        args: ``per_device_train_batch_size`` queries per step and process.
        order: (steps, batch) numbers of :class:`Collator` for every step, over all processes.
        collator: From these numbers to a batch.
        listwise_weight: Weight of L_list.
        stop_gradient_norm: A larger norm, before clipping, or one that is not finite stops the training.
        report: Called on process 0 with the figures of every ``logging_steps`` steps.
        callbacks: Further callbacks of transformers.
    """

    def __init__(
        self,
        model: RerankerModel,
        args: TrainingArguments,
        order: NDArray[np.int64],
        collator: Collator,
        *,
        listwise_weight: float,
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
            section="rerank",
        )
        self._listwise_weight, self._done = listwise_weight, Done()

    def compute_step(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Add the gradients of one batch, chunk by chunk."""
        self.accelerator.unwrap_model(model).begin_step()
        sums = torch.zeros(2, device=self.args.device)  # L_pair and L_list of this process
        for chunk in batch.chunks:
            listwise = torch.tensor([message.listwise for message in chunk.messages], device=self.args.device)
            counts = torch.where(listwise, max(batch.listwise, 1), batch.pairwise)
            losses = model(chunk) / counts
            (losses * torch.where(listwise, self._listwise_weight, 1.0)).sum().backward()
            losses = losses.detach()
            sums += torch.stack([losses[~listwise].sum(), losses[listwise].sum()])
        # the same on all processes: where it is not finite, all have to stop
        pairwise, listed = self._of_all(sums[None]).mean(0)
        self._count(batch, float(pairwise), float(listed))
        return pairwise + self._listwise_weight * listed

    def _count(self, batch: Batch, pairwise: float, listwise: float) -> None:
        done = self._done
        self._done = Done(
            done.steps + 1,
            done.queries + len(batch.query_ids),
            done.messages + batch.pairwise + batch.listwise,
            done.tokens + batch.tokens,
            done.pairwise + pairwise,
            done.listwise + listwise,
        )

    def rates(self, seconds: float) -> dict[str, float]:
        """Return both losses, and queries, messages and tokens per second."""
        done, self._done = self._done, Done()
        per_second = self.args.world_size / seconds
        losses = {"loss_pairwise": done.pairwise / max(done.steps, 1)}
        if self._listwise_weight:
            losses["loss_listwise"] = done.listwise / max(done.steps, 1)
        return losses | {
            "queries_per_second": done.queries * per_second,
            "messages_per_second": done.messages * per_second,
            "tokens_per_second": done.tokens * per_second,
        }
