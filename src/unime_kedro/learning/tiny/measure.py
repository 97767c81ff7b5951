"""What the tiny judge is worth, on pairs that it has never seen: unseen object sets, unseen drawings, all hard."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unime_kedro.evaluation.calibration import TEMPERATURE_LIMITS, fit_temperature
from unime_kedro.evaluation.ranking import expected_calibration_error, roc_auc
from unime_kedro.evaluation.statistics import bootstrap_interval
from unime_kedro.learning.tiny.judge import hard_pair_logits
from unime_kedro.minimmeb.scenes import COMBINATIONS, NOVEL
from unime_kedro.minimmeb.tasks import TASKS, TRAIN_TASKS, Task
from unime_kedro.mllm.adapters import local_or_hub
from unime_kedro.mllm.calibration import read_temperature, write_calibration
from unime_kedro.mllm.judgements import score

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

    from unime_kedro.learning.tiny.batches import Encoder

log = logging.getLogger(__name__)

#: resamples of an interval of an AUC, which has no fast way
_RESAMPLES = 500


@dataclass(frozen=True)
class _Pairs:
    """Judged pairs: Yes-minus-No logits (n,) float32, whether they match (n,) bool, what is resampled (n,) int64."""

    logits: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def _join(parts: list[_Pairs]) -> _Pairs:
    """Put pairs behind each other; groups of different parts stay different."""
    starts = np.cumsum([0, *(len(p.labels) for p in parts[:-1])])
    return _Pairs(
        np.concatenate([p.logits for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.groups + start for p, start in zip(parts, starts, strict=True)]),
    )


class JudgeTest:
    """Judges held-out pairs with a saved tiny judge.

    Args:
        folder: The model's folder.
        pairs: Pairs per data set.
        seed: Seed of the pairs and of their drawings.

    Raises:
        ModelError: If there is no model in the folder.
    """

    def __init__(self, folder: Path, *, pairs: int, seed: int) -> None:
        import torch
        from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

        from unime_kedro.learning.tiny.batches import Encoder, TileBank

        local_or_hub(str(folder))
        torch.set_num_threads(1)  # more are slower for a model of this size
        self.pairs, self.seed = pairs, seed
        self.model: Qwen2VLForConditionalGeneration = Qwen2VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self.encoder: Encoder = Encoder(AutoTokenizer.from_pretrained(folder), TileBank(seed))

    def judge(self, task: Task, split: str) -> _Pairs:
        """Judge the pairs of a data set made from a split."""
        return _Pairs(*hard_pair_logits(self.model, self.encoder, task, split, pairs=self.pairs, seed=self.seed))


def calibrate_judge(folder: Path, *, pairs: int, seed: int) -> float:
    """Fit the judge's temperature on pairs of the calibration split and save it beside the model.

    Args:
        folder: The model's folder.
        pairs: Pairs per data set.
        seed: Seed of the pairs.

    Returns:
        The temperature.
    """
    test = JudgeTest(folder, pairs=pairs, seed=seed)
    found = _join([test.judge(task, "calibration") for task in TRAIN_TASKS.values()])
    temperature = fit_temperature(found.logits, found.labels)
    if temperature in TEMPERATURE_LIMITS:
        log.warning(
            "the judge's temperature is at its limit, %g: it separates the calibration pairs without a fault, or not "
            "at all; its scores are no probabilities.",
            temperature,
        )
    facts = {"data": "mini-MMEB, split calibration, hard pairs of all data sets with training pairs"}
    write_calibration(folder, temperature, pairs=len(found.labels), seed=seed, **facts)
    return temperature


def _auc(metrics: dict[str, float], name: str, pairs: _Pairs) -> None:
    """Add an AUC with the ends of its interval over groups of dependent pairs."""
    found = bootstrap_interval(roc_auc, pairs.logits, pairs.labels, groups=pairs.groups, resamples=_RESAMPLES)
    group, _, rest = name.partition("/")
    metrics[name] = found.value
    metrics[f"{group}_low/{rest}"], metrics[f"{group}_high/{rest}"] = found.low, found.high


def measure_judge(folder: Path, *, pairs: int, seed: int) -> dict[str, float]:
    """Measure a saved judge on the pairs of split ``judge_test``, of unseen things, and of novel classes.

    ===============================  ===================================================================================
    metric                           definition
    ===============================  ===================================================================================
    auc/<data set>, <meta-task>      ROC AUC over the data set's pairs, over all pairs of the meta-task's data sets
    auc/all                          ROC AUC over all pairs of the data sets with training pairs
    unseen_auc/<data set>            the same for what is out of distribution (rendering, question form, combinations)
    novel_auc/<data set>             the same for 40 object classes that were not in pretraining
    ..._low/..., ..._high/...        95 % interval of each, bootstrapped over queries (classes, real pictures: where
                                     several queries share one)
    accuracy                         share of pairs on the right side of .5
    temperature                      the judge's own
    ece_raw, ece                     expected calibration error (15 bins) without and with the temperature
    score_share_between_05_95_raw    share of scores in (.05, .95) without the temperature; ``..._95``: with it
    ===============================  ===================================================================================

    Args:
        folder: The model's folder.
        pairs: Pairs per data set; half of them match, the others have one thing wrong.
        seed: Seed of the pairs.

    Returns:
        Metric -> value.
    """
    test = JudgeTest(folder, pairs=pairs, seed=seed)
    metrics: dict[str, float] = {}
    found = {name: test.judge(task, "judge_test") for name, task in TRAIN_TASKS.items()}
    for name, part in found.items():
        _auc(metrics, f"auc/{name}", part)
    for meta_task in dict.fromkeys(task.meta_task for task in TRAIN_TASKS.values()):
        members = [part for name, part in found.items() if TRAIN_TASKS[name].meta_task == meta_task]
        _auc(metrics, f"auc/{meta_task}", _join(members))
    everything = _join(list(found.values()))
    _auc(metrics, "auc/all", everything)
    for name, task in TASKS.items():
        if task.unseen:
            split = COMBINATIONS if task.unseen == "combinations" else "judge_test"
            _auc(metrics, f"unseen_auc/{name}", test.judge(task, split))
    for name, task in TRAIN_TASKS.items():
        if task.ask != "real":
            _auc(metrics, f"novel_auc/{name}", test.judge(task, NOVEL))
    return metrics | _calibration(everything, read_temperature(folder)) | {"pairs": len(everything.labels)}


def _calibration(pairs: _Pairs, temperature: float) -> dict[str, float]:
    """Measure scores as probabilities, before and after the temperature."""
    metrics = {"accuracy": float(((pairs.logits > 0) == pairs.labels).mean()), "temperature": temperature}
    for suffix, value in (("_raw", 1.0), ("", temperature)):
        scores = score(pairs.logits, np.zeros_like(pairs.logits), value)
        metrics[f"ece{suffix}"] = expected_calibration_error(scores, pairs.labels)
        metrics[f"score_share_between_05_95{suffix}"] = float(((scores > 0.05) & (scores < 0.95)).mean())
    return metrics
