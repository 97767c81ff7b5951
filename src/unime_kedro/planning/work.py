"""What the stages of a run have to compute: tokens and operations, scaled from a sample to the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unime_kedro.planning.interval import Interval, bootstrap_rows

if TYPE_CHECKING:
    from unime_kedro.mllm.cost import ModelCost
    from unime_kedro.planning.lengths import Lengths

_SEED = 0


@dataclass(frozen=True)
class Work:
    """What a stage computes.

    Attributes:
        stage: Its name.
        model: Hub id or folder.
        units: What is counted: ``pairs`` (judge) or ``contents``.
        amount: How many of these are left to compute.
        figures: More numbers by name.
        operations: Floating-point operations; None where the model's size is not known.
        notes: What a reader should know.
    """

    stage: str
    model: str
    units: str
    amount: Interval
    figures: dict[str, Interval]
    operations: Interval | None
    notes: list[str] = field(default_factory=list)


def scaled(amounts: NDArray[np.float64], per: NDArray[np.float64], whole: Interval | float) -> Interval:
    """Scale a sample's amounts to the whole: ``whole * sum(amounts) / sum(per)``, with a bootstrap interval.

    Args:
        amounts: (n,) of each sampled unit.
        per: (n,) what the whole is counted in, of each sampled unit.
        whole: How many of these there are in all.
    """
    if len(amounts) == 0:
        return Interval.exactly(0.0)
    if len(amounts) == 1:
        return Interval.exactly(float(amounts[0] / per[0])) * whole
    rows = bootstrap_rows(len(amounts), _SEED)
    draws = amounts[rows].sum(axis=1) / per[rows].sum(axis=1)
    return Interval.of_draws(float(amounts.sum() / per.sum()), draws) * whole


def spanning(found: list[Work]) -> Work:
    """Join what was computed for the low, middle and high end of assumed lengths; a single one stays as it is."""
    if len(found) == 1:
        return found[0]
    low, middle, high = found

    def span(of: Callable[[Work], Interval]) -> Interval:
        ends = sorted((of(low).low, of(middle).middle, of(high).high))
        return Interval(*ends)

    return Work(
        middle.stage,
        middle.model,
        middle.units,
        span(lambda work: work.amount),
        {name: span(lambda work, name=name: work.figures[name]) for name in middle.figures},  # type: ignore[misc]
        None if middle.operations is None else span(lambda work: work.operations),  # type: ignore[arg-type,return-value]
        middle.notes,
    )


def contents_operations(lengths: NDArray[np.float64], cost: ModelCost, vision: float = 1.0) -> NDArray[np.float64]:
    """Operations of reading contents on their own.

    Args:
        lengths: (n, 2) words and visual tokens.
        cost: Of the model.
        vision: Passes through the vision tower per pass through the language model.
    """
    found: NDArray[np.float64] = cost.words(lengths.sum(axis=1)) + vision * cost.picture(lengths[:, 1])  # type: ignore[arg-type,assignment]
    return found


def embedding_work(lengths: Lengths, cost: ModelCost | None, items: Interval, model: str) -> Work:
    """Embed every distinct content once (method 2.1)."""
    singles, ones = lengths.singles, np.ones(len(lengths.singles))
    return Work(
        "embed",
        model,
        "contents",
        items,
        {
            "tokens": scaled(singles.sum(axis=1), ones, items),
            "visual_tokens": scaled(singles[:, 1], ones, items),
        },
        None if cost is None else scaled(contents_operations(singles, cost), ones, items),
    )


def judging_work(
    lengths: Lengths, cost: ModelCost | None, pairs: Interval, pictures: Interval, model: str, *, share_prefix: bool
) -> Work:
    """Judge pairs (method 2.2); the tokens of a query run once for all its candidates where the prefix is shared.

    Args:
        lengths: Of the sample, in the parts of the judge's prompt.
        cost: Of the judge.
        pairs: How many are left to judge.
        pictures: Distinct pictures among them; each goes through the vision tower once.
        model: The judge.
        share_prefix: Whether prefixes are shared.
    """
    head, tails = lengths.query.sum(axis=1), lengths.candidates.sum(axis=2)
    width = np.full(len(head), float(tails.shape[1]))
    prompt, shared = head * width + tails.sum(axis=1), head + tails.sum(axis=1)
    run = shared if share_prefix else prompt
    operations = None
    if cost is not None:
        words = cost.words(head) + cost.words(tails, before=head[:, None]).sum(axis=1)  # type: ignore[arg-type,attr-defined]
        if not share_prefix:
            words = cost.words(head[:, None] + tails).sum(axis=1)  # type: ignore[arg-type,attr-defined]
        shown = lengths.pictures
        towers = scaled(np.asarray(cost.picture(shown)), np.ones(len(shown)), pictures)  # type: ignore[arg-type]
        operations = scaled(words, width, pairs) + towers
    return Work(
        "judge",
        model,
        "pairs",
        pairs,
        {
            "prompt_tokens": scaled(prompt, width, pairs),
            "run_tokens": scaled(run, width, pairs),
            "prefix_share": scaled(head * width, prompt, 1.0),
            "pictures": pictures,
            "visual_tokens": scaled(lengths.pictures, np.ones(len(lengths.pictures)), pictures),
        },
        operations,
    )


def contents_work(
    stage: str, lengths: NDArray[np.float64], cost: ModelCost | None, amount: Interval, model: str, passes: Passes
) -> Work:
    """Read contents several times over, as training does.

    Args:
        stage: Its name.
        lengths: (n, 2) words and visual tokens of sampled contents, as they are read.
        cost: Of the model.
        amount: How many contents are read.
        model: Its name.
        passes: How often each goes through the model.
    """
    ones = np.ones(len(lengths))
    operations = None
    if cost is not None:
        operations = scaled(contents_operations(lengths, cost, passes.vision / passes.language), ones, amount)
        operations = operations * passes.language
    tokens = scaled(lengths.sum(axis=1), ones, amount)
    return Work(stage, model, "contents", amount, {"tokens": tokens}, operations)


@dataclass(frozen=True)
class Passes:
    """How often a content goes through a model, counted in forward passes.

    A backward pass costs one through frozen weights (gradients of inputs alone) and two through trained ones.

    Attributes:
        language: Through the language model.
        vision: Through the vision tower.
    """

    language: float
    vision: float


def training_passes(*, lora: bool, freeze_vision: bool, cached: bool) -> Passes:
    """Return the passes of one training step.

    Args:
        lora: Whether the weights themselves are frozen.
        freeze_vision: Whether the vision tower is.
        cached: Whether a first pass without graph comes before (gradient cache; method section 3).
    """
    forward = 2 if cached else 1
    backward = 1 if lora else 2
    if lora or freeze_vision:  # no gradient reaches the tower
        return Passes(forward + backward, forward)
    return Passes(forward + backward, forward + backward)
