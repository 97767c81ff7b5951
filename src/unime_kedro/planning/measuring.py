"""Run a sample of the real stages, and scale the time up to the whole.

What a query costs falls while a run goes on: pictures and words of candidates are prepared once and kept. So time is
explained by what each query brings that is new and by what it runs, and both are counted for the whole corpus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from unime_kedro.errors import ConfigurationError
from unime_kedro.planning.interval import Interval, bootstrap_rows
from unime_kedro.planning.lengths import count_lengths

if TYPE_CHECKING:
    from unime_kedro.mllm.embedding import Embedder
    from unime_kedro.mllm.judge import PrefixJudge
    from unime_kedro.planning.corpus import Corpus, Group
    from unime_kedro.planning.models import PlannedModel
    from unime_kedro.planning.settings import Settings
    from unime_kedro.planning.work import Work

#: contents embedded between two looks at the clock
_BATCH = 32
_RESAMPLES = 200
#: what a machine's speed is taken to vary by between a sample and a whole run: heat, neighbours, disks
_MACHINE = Interval(0.9, 1.0, 1.1)


class Measured(Protocol):
    """A measured speed."""

    @property
    def basis(self) -> str:
        """Where it is from, in words."""

    def seconds(self, work: Work) -> Interval:
        """Return how long work of this stage takes."""


@dataclass(frozen=True)
class MeasuredJudging:
    """Seconds of judged queries, explained by what each of them had to do.

    Attributes:
        causes: (n, 4): visual tokens encoded for the first time, contents seen for the first time, tokens run, and 1.
        took: (n,) seconds.
        queries: Of the whole corpus.
        pairs: With all of their candidates.
        contents: Distinct ones of the whole corpus.
        basis: In words.
    """

    causes: NDArray[np.float64]
    took: NDArray[np.float64]
    queries: float
    pairs: float
    contents: float
    basis: str

    def seconds(self, work: Work) -> Interval:
        """Return how long judging ``work`` takes, with the interval of the sample."""
        visual, tokens = (work.figures[name].middle for name in ("visual_tokens", "run_tokens"))
        share = work.amount.middle / self.pairs
        whole = [visual, self.contents * share, tokens, self.queries * share]
        return _explained(self.causes, self.took, np.array(whole)) * _MACHINE


@dataclass(frozen=True)
class MeasuredEmbedding:
    """Seconds of embedded batches.

    Attributes:
        tokens: (n,) tokens of each batch.
        took: (n,) seconds.
        basis: In words.
    """

    tokens: NDArray[np.float64]
    took: NDArray[np.float64]
    basis: str

    def seconds(self, work: Work) -> Interval:
        """Return how long embedding ``work`` takes: seconds per token."""
        return _explained(self.tokens[:, None], self.took, np.array([work.figures["tokens"].middle])) * _MACHINE


@dataclass(frozen=True)
class Derived:
    """A stage that was not measured, at the speed of one that was, in operations per second.

    Attributes:
        speed: Operations per second of the measured stage.
        spread: How many times faster or slower this one may be.
        basis: In words.
    """

    speed: Interval
    spread: float
    basis: str

    def seconds(self, work: Work) -> Interval:
        """Return how long ``work`` takes."""
        if work.operations is None:
            return Interval.exactly(0.0)
        wide = Interval(self.speed.low / self.spread, self.speed.middle, self.speed.high * self.spread)
        return work.operations.over(wide)


def _explained(causes: NDArray[np.float64], took: NDArray[np.float64], whole: NDArray[np.float64]) -> Interval:
    """Fit ``took = causes @ rates`` with rates of at least 0, and return ``whole @ rates`` with its interval.

    The fit is to relative errors, after which the rates are scaled so that the sample's total is met exactly: single
    slow queries (a pause of the machine) count in the total and do not bend the rates.
    """
    used = causes.sum(axis=0) > 0

    def predicted(rows: NDArray[Any]) -> float:
        from scipy.optimize import nnls

        x, y = causes[rows][:, used], took[rows]
        weights = 1 / np.maximum(np.median(y), y)
        rates, _ = nnls(x * weights[:, None], y * weights)
        fitted = float((x @ rates).sum())
        return float(whole[used] @ rates) * (float(y.sum()) / fitted if fitted > 0 else 1.0)

    n = len(took)
    draws = np.array([predicted(rows) for rows in bootstrap_rows(n, 0, _RESAMPLES)])
    return Interval.of_draws(predicted(np.arange(n)), draws)


def measure_stages(
    settings: Settings,
    corpus: Corpus,
    queries: int,
    model_of: Callable[[str, Any], PlannedModel],
    clock: Callable[[], float] = time.perf_counter,
) -> Mapping[str, Measured]:
    """Run a sample of embedding and judging through the real backends; other stages get the speed of embedding.

    Args:
        settings: The run.
        corpus: With a sample of at least ``queries`` queries.
        queries: How many to run.
        model_of: The planned models, to count tokens with.
        clock: What is looked at, in seconds.

    Returns:
        Stage -> its speed.
    """
    found: dict[str, Measured] = {}
    stages = settings.stages
    if "judge" in stages:
        found["judge"] = _judging(settings, corpus, queries, model_of("judge", settings.section("judge")), clock)
    if set(stages) - {"judge"}:
        pool = settings.section("pool")
        model = model_of("pool", pool)
        embedding = _embedding(settings, corpus, model, clock)
        if "embed" in stages:
            found["embed"] = embedding
        if model.cost is not None:
            found |= _derived(stages, embedding, corpus, model)
    return found


def _judging(
    settings: Settings, corpus: Corpus, queries: int, model: PlannedModel, clock: Callable[[], float]
) -> MeasuredJudging:
    """Judge a sample as the stage does, and look at the clock after every query."""
    from unime_kedro.pipelines.judge.backends import make_judge

    judge = settings.section("judge")
    groups = corpus.groups[:queries]
    _runs_here("judge", judge.backend)
    backend = cast("PrefixJudge", make_judge(judge))
    next(iter(backend.judge_all(groups[:1])))  # what only the first one pays: memory, threads
    backend = cast("PrefixJudge", make_judge(judge))
    took, last = [], clock()
    for _ in backend.judge_all(groups):
        now = clock()
        took.append(now - last)
        last = now
    causes = _causes(model, groups, judge.share_prefix)
    basis = f"measured here with {len(groups):,} queries, {sum(len(g.candidates) for g in groups):,} pairs"
    pairs = corpus.queries * (corpus.k + 1)
    return MeasuredJudging(causes, np.array(took), corpus.queries, pairs, corpus.items.middle, basis)


def _runs_here(stage: str, backend: str) -> None:
    """Refuse to measure what is not run query by query in this process."""
    if backend != "transformers":
        raise ConfigurationError(
            f"--measure looks at the clock after every query, which {stage}.backend: {backend} does not give it. State "
            "the speed that you know (--pairs-per-second, --tokens-per-second), or measure backend: transformers."
        )


def _causes(model: PlannedModel, groups: Sequence[Group], share_prefix: bool) -> NDArray[np.float64]:
    """Count what each query makes the judge do: new visual tokens, new contents, tokens run; and 1 for itself."""
    seen: set[Any] = set()
    as_query, as_candidate = model.judged_parts()
    rows = []
    for query, candidates in groups:
        visual = new = 0
        for content in (query, *candidates):
            if content not in seen:
                seen.add(content)
                new += 1
            if content.image is not None and content.image not in seen:
                seen.add(content.image)
                visual += model.length(content).visual
        head = model.length(query, as_query).tokens
        tails = [model.length(content, as_candidate).tokens for content in candidates]
        rows.append((visual, new, (head if share_prefix else head * len(tails)) + sum(tails), 1))
    return np.array(rows, dtype=np.float64)


def _embedding(
    settings: Settings, corpus: Corpus, model: PlannedModel, clock: Callable[[], float]
) -> MeasuredEmbedding:
    from unime_kedro.pipelines.pool.nodes import load_embedder

    _runs_here("pool", settings.section("pool").backend)
    embedder = cast("Embedder", load_embedder(settings.section("pool")))
    contents = corpus.singles
    embedder.embed(contents[:2])  # what only the first batch pays
    took, tokens = [], []
    for start in range(0, len(contents), _BATCH):
        batch = contents[start : start + _BATCH]
        begun = clock()
        embedder.embed(batch)
        took.append(clock() - begun)
        tokens.append(sum(model.length(content).tokens for content in batch))
    basis = f"measured here with {len(contents):,} contents"
    return MeasuredEmbedding(np.array(tokens, dtype=np.float64), np.array(took), basis)


def _derived(
    stages: Sequence[str], embedding: MeasuredEmbedding, corpus: Corpus, model: PlannedModel
) -> dict[str, Measured]:
    from unime_kedro.planning.work import contents_operations

    lengths = count_lengths(model, corpus)[0].singles
    assert model.cost is not None
    speed = float(contents_operations(lengths, model.cost).sum() / embedding.took.sum())
    basis = "derived from the measured speed of embedding, up to twice as fast or slow"
    others = [stage for stage in stages if stage not in ("embed", "judge")]
    return {stage: Derived(Interval.exactly(speed), 2.0, basis) for stage in others}
