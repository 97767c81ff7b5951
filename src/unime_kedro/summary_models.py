"""What a run that made or measured a model says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unime_kedro.minimmeb.tasks import TASKS
from unime_kedro.summary_evaluation import evaluation_lines, is_tiny

#: a line's label -> stages whose metrics it is made of, whichever ran
_JUDGE = ("measure_judge", "pretrain_judge")
_EMBEDDER = ("measure_embedder", "pretrain_embedder", "trained")
#: stages after which there is something to say
MODEL_STAGES = (*_JUDGE, *_EMBEDDER, "train", "evaluate")

#: stages that make or measure the embedded models themselves
_TINY_MODELS = ("measure_judge", "pretrain_judge", "measure_embedder", "pretrain_embedder")
_TINY = "tiny and trained on synthetic data: these figures say nothing of real models"


def model_lines(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (label, text) of every line: AUC of the judge, its calibration, Precision@1 of the embedder.

    Args:
        metrics: stage -> its metrics, of :func:`.learning.tiny.measure.measure_judge` and
            :func:`.evaluation.mini_mmeb.evaluate_mini_mmeb`.
    """
    judge = next((metrics[stage] for stage in _JUDGE if stage in metrics), {})
    evaluated = metrics.get("evaluate", {})
    embedder = next((metrics[stage] for stage in _EMBEDDER if stage in metrics), {})
    lines = [
        *_training(metrics),
        ("judge", _figures("ROC AUC", judge, "auc", first="all", among=_meta_tasks())),
        ("", _figures("unseen things", judge, "unseen_auc", among=list(TASKS))),
        ("", _figures("unseen classes", judge, "novel_auc", among=list(TASKS))),
        ("", _calibration(judge)),
        ("embedder", _figures("Precision@1", embedder, "precision_at_1", first="all", among=_meta_tasks())),
        ("", _figures("", embedder, "precision_at_1", among=["in_distribution", "out_of_distribution"])),
        ("", _figures("Recall@1", embedder, "recall_at_1", among=["EmojiCaptions_i2t", "EmojiCaptions_t2i"])),
        ("", _figures("compositional", embedder, "compositional", among=["replace", "swap", "add"])),
        *evaluation_lines(evaluated),
        ("models", _TINY if any(stage in metrics for stage in _TINY_MODELS) or is_tiny(evaluated) else ""),
    ]
    return [(label, text) for label, text in lines if text]


def _training(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the lines of a training: what it was given, what it did, how it did on validation data."""
    m, rows = metrics.get("train", {}), metrics.get("training", {})
    if "steps" not in m:
        return []
    given = f"{rows['queries']:,.0f} queries, " if "queries" in rows else ""
    head = f"{given}{m['steps']:,.0f} steps"
    if m.get("reused"):
        head += ": done before with the same data and parameters, nothing was trained"
    elif "pairs_per_second" in m:
        head += f", {m['pairs_per_second']:,.0f} pairs/s, {m['encodes_saved']:.1%} of encodings saved"
        head += f", peak memory {m['peak_memory_gb']:.1f} GiB"
    lines = [("train", head)]
    if "validation_precision_at_1" in m:
        text = f"Precision@1 {m['validation_precision_at_1']:.3f}"
        before = m.get("validation_precision_at_1_before")
        lines.append(("validation", f"{text}, {before:.3f} before training" if before is not None else text))
    return lines


def _meta_tasks() -> list[str]:
    return list(dict.fromkeys(task.meta_task for task in TASKS.values()))


def _figures(title: str, m: Mapping[str, Any], metric: str, *, among: list[str], first: str = "") -> str:
    """Return "title 0.900 (0.880 to 0.920); name 0.910, name 0.890", "" where nothing was measured."""
    parts = [f"{name} {m[f'{metric}/{name}']:.3f}" for name in among if f"{metric}/{name}" in m]
    head = title
    if first and f"{metric}/{first}" in m:
        value, low, high = (m[f"{metric}{end}/{first}"] for end in ("", "_low", "_high"))
        head = f"{title} {value:.3f} ({low:.3f} to {high:.3f});"
    return f"{head} {', '.join(parts)}".strip() if parts else ""


def _calibration(m: Mapping[str, Any]) -> str:
    if "temperature" not in m:
        return ""
    return (
        f"calibration error {m['ece']:.3f} at temperature {m['temperature']:.3f}, {m['ece_raw']:.3f} without; "
        f"{m['score_share_between_05_95']:.1%} of scores between .05 and .95, "
        f"{m['score_share_between_05_95_raw']:.1%} without"
    )
