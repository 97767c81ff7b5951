"""Model cards of the tiny models: data, recipe, measured quality with intervals, limits, licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unime_kedro.minimmeb.classes import N_CLASSES, N_NOVEL
from unime_kedro.minimmeb.tasks import TASKS, TRAIN_TASKS

_HEAD = """---
license: cc-by-sa-4.0
library_name: transformers
tags: [unime-kedro, tiny, synthetic]
---
# {title}

A real `Qwen2VLForConditionalGeneration`, shrunk to {millions:.2f} million parameters and trained from nothing by
`kedro run --pipeline=pretrain` of unime-kedro. It exists so that the pipelines run anywhere; **its quality says nothing
about the paper's models**. The initialisation of its first attention layer (matching heads) and its synthetic
supervision stand in for what a pretrained multimodal LLM brings along.

## Data

Synthetic: scenes of one to four of {n_classes} object classes, drawn anew from [OpenMoji](https://openmoji.org)
(CC BY-SA 4.0), with captions, labels and questions made from templates, a quarter of the names that have one replaced
by a synonym; object sets of mini-MMEB's split `pretrain` only. Real: pictures 0 to 2,999 of
[easy-VQA](https://github.com/vzhou842/easy-VQA)'s training part (MIT) whose shape is at least 20 pixels wide and high,
moved and mirrored, with their questions.

## Recipe

{recipe}
Made in {minutes:.0f} minutes ({cpu_minutes:.0f} of CPU) on {machine}; torch {torch}, transformers {transformers}. Equal
seeds give equal weights on equal machines. Stored in float16, run in float32.

## Measured quality

Recomputed by `kedro run --pipeline=measure` from the saved weights. Intervals: 95 %, bootstrapped over queries (over
classes and real pictures where several queries share one).
"""

_TEST = """ROC AUC on {pairs:,} held-out pairs, {each:,} a data set. The sets of several objects asked for, all drawings
and the real pictures were nowhere in pretraining; half of the pairs are right, every other one has exactly one thing
wrong, from the same subgroup of OpenMoji where there is one."""

_CALIBRATION = """Accuracy at .5: {accuracy:.3f}. Expected calibration error (15 bins): {ece_raw:.3f} as trained,
{ece:.3f} with the temperature {temperature:.3f} that was fitted on the calibration split and stands in
`judge_calibration.json` (`judge.temperature: 1.0` turns it off), on pairs like these: half of them right, all hard.
Share of scores in (.05, .95): {score_share_between_05_95_raw:.3f} as trained,
{score_share_between_05_95:.3f} with it."""

_LIMITS = """
## Limits

It knows {n_classes} kinds of drawings, their names and a few synonyms, easy-VQA's shapes and colours. No photographs,
no free text, no positions, no counting. Do not use it on other data.

## Licence

CC BY-SA 4.0, as the drawings: all emojis designed by [OpenMoji](https://openmoji.org), the open-source emoji and icon
project. Twemoji's drawings (CC BY 4.0) are used for testing only.
"""

Metrics = Mapping[str, float]


def _value(metrics: Metrics, metric: str, name: str) -> str:
    low, high = metrics[f"{metric}_low/{name}"], metrics[f"{metric}_high/{name}"]
    return f"{metrics[f'{metric}/{name}']:.3f} ({low:.3f} to {high:.3f})"


def _names(metrics: Metrics, metric: str) -> list[str]:
    return [key.partition("/")[2] for key in metrics if key.startswith(f"{metric}/")]


def _table(header: str, rows: list[str]) -> str:
    rule = "|".join("---" for _ in header.strip("|").split("|"))
    return "\n".join(["", header, f"|{rule}|", *rows, ""])


def _head(title: str, record: Mapping[str, Any], recipe: str) -> str:
    return _HEAD.format(
        title=title,
        millions=record["parameters"] / 1e6,
        n_classes=N_CLASSES,
        recipe=recipe,
        minutes=record["seconds"] / 60,
        cpu_minutes=record["cpu_seconds"] / 60,
        **{key: record[key] for key in ("machine", "torch", "transformers")},
    )


def judge_card(record: Mapping[str, Any], metrics: Metrics) -> str:
    """Return the judge's card.

    Args:
        record: Of :func:`.make.make_judge`.
        metrics: Of :func:`.measure.measure_judge`.
    """
    made = record["recipe"]
    recipe = (
        f"{made['align_steps']} steps of alignment of pictures with words, then {made['steps']} steps of "
        f"{made['batch']} queries with 8 candidates each under the\njudge's full prompt, towards graded targets "
        "P(Yes) = .03 / .12 / .25 / .40 / .97 for a relevance of 0 / 1/3 / 1/2 / 2/3 / 1\n(Jaccard index of the "
        f"objects). Top learning rate {made['learning_rate']:g}, seed {made['seed']}."
    )
    seen = [f"| {name} | {_value(metrics, 'auc', name)} |" for name in _names(metrics, "auc")]
    unseen = [
        f"| {name} | unseen {TASKS[name].unseen} | {_value(metrics, 'unseen_auc', name)} |"
        for name in _names(metrics, "unseen_auc")
    ]
    novel = [
        f"| {name} | unseen object classes | {_value(metrics, 'novel_auc', name)} |"
        for name in _names(metrics, "novel_auc")
    ]
    pairs = int(metrics["pairs"])
    return "\n".join(
        [
            _head("unime-kedro tiny judge", record, recipe),
            _TEST.format(pairs=pairs, each=pairs // len(TRAIN_TASKS)),
            _table("| data set, meta-task | ROC AUC |", seen),
            f"Out of what it was trained for, and on {N_NOVEL} classes whose drawings and names it has never seen:",
            _table("| data set | what is unseen | ROC AUC |", unseen + novel),
            _CALIBRATION.format(**metrics),
            _LIMITS.format(n_classes=N_CLASSES),
        ]
    )


def embedder_card(record: Mapping[str, Any], metrics: Metrics) -> str:
    """Return the embedder's card.

    Args:
        record: Of :func:`.make.make_embedder`.
        metrics: Of :func:`unime_kedro.evaluation.mini_mmeb.evaluate_mini_mmeb`.
    """
    made = record["recipe"]
    recipe = (
        f"{made['align_steps']} steps of alignment of pictures with words, then {made['steps']} contrastive steps of "
        f"{made['batch']} pairs (InfoNCE, in-batch\nnegatives). Few on purpose: the pool is to be found by a middling "
        f"embedder. Top learning rate {made['learning_rate']:g}, seed {made['seed']}."
    )
    blocks = []
    for metric, header in (
        ("precision_at_1", "| data set, group | Precision@1 | 1 / candidates |"),
        ("recall_at_1", "| five captions a picture | Recall@1 | chance |"),
        ("compositional", "| compositional captions | accuracy | chance |"),
    ):
        rows = [
            f"| {name} | {_value(metrics, metric, name)} | {metrics[f'{metric}_chance/{name}']:.3f} |"
            for name in _names(metrics, metric)
        ]
        blocks.append(_table(header, rows))
    return "\n".join(
        [
            _head("unime-kedro tiny pool embedder", record, recipe),
            "On mini-MMEB's evaluation sets: 100 queries each, 20 candidates, half of the wrong ones made for the "
            "query; ties count\nas wrong.",
            *blocks,
            _LIMITS.format(n_classes=N_CLASSES),
        ]
    )
