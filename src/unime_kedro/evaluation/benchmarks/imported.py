"""Scores that another program measured, in the shape of one's own: means, intervals, the paper's rows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unime_kedro.errors import DataError
from unime_kedro.evaluation.benchmarks.declarations import Benchmark, means_of
from unime_kedro.evaluation.benchmarks.paper import PAPER, PAPER_ROWS
from unime_kedro.evaluation.benchmarks.registry import find_benchmark, suggestion
from unime_kedro.io.score_files import Score, read_scores

#: level of the intervals
LEVEL = 0.95
_TITLES = {"classification": "class.", "retrieval": "retr.", "visual_grounding": "ground.", "vqa": "VQA"}
_WIDTH = 100


def import_scores(path: str | Path, benchmark: str = "MMEB", name: str | None = None) -> dict[str, Any]:
    """Read scores and compute a benchmark's means of them.

    Args:
        path: A folder of ``<data set>_score.json``, or a CSV file (see :mod:`unime_kedro.io.score_files`).
        benchmark: Which benchmark they are of.
        name: What to call the model; None for the name of the folder or file.

    Returns:
        ``name``, ``benchmark``, ``source`` (the path), ``level`` of the intervals, ``datasets`` (name -> value, a share
        in [0, 1], n, and the ends low and high of its Wilson interval, the last three None without counts), ``means``
        (name -> value, None if a member is missing), ``missing`` (declared data sets without a score).

    Raises:
        ConfigurationError: If the benchmark is not known.
        DataError: If a data set is not the benchmark's, or the scores cannot be read.
    """
    path = Path(path)
    declared = find_benchmark(benchmark)
    scores = read_scores(path, declared.names)
    for dataset in scores:
        if dataset not in declared.names:
            raise DataError(f"{path}: {benchmark} has no data set {dataset!r}. {suggestion(dataset, declared.names)}")
    ordered = {one: scores[one] for one in declared.names if one in scores}
    means = means_of(declared, {one: score.value for one, score in ordered.items()})
    return {
        "name": name or (path.name if path.is_dir() else path.stem),
        "benchmark": benchmark,
        "source": str(path),
        "level": LEVEL,
        "datasets": {one: _figures(score) for one, score in ordered.items()},
        "means": {mean.name: mean.value for mean in means},
        "missing": [one for one in declared.names if one not in scores],
    }


def _figures(score: Score) -> dict[str, float | int | None]:
    low, high = wilson_interval(score.correct, score.n) if score.correct is not None and score.n else (None, None)
    return {"value": score.value, "n": score.n, "low": low, "high": high}


def wilson_interval(correct: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927), for queries that are independent.

    Args:
        correct: How many of them were right.
        n: How many queries there were, at least 1.
        level: Level of the interval.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def format_imported(document: dict[str, Any]) -> str:
    """Return imported scores as text: the means beside the paper's rows, the data sets, what is missing."""
    benchmark = find_benchmark(document["benchmark"])
    parts = [_means_table(benchmark, document), _datasets_table(benchmark, document)]
    if document["missing"]:
        parts.append(
            _wrapped(
                f"Missing: {', '.join(document['missing'])}. A mean with a missing data set is not computed; over the "
                "others it would not be comparable."
            )
        )
    return "\n\n".join(part for part in parts if part)


def _means_table(benchmark: Benchmark, document: dict[str, Any]) -> str:
    if not benchmark.means:
        return ""
    names = [mean.name for mean in benchmark.means]
    paper = PAPER_ROWS.get(benchmark.name, {})
    means = document["means"]
    rows = [["model, % right", *(_TITLES.get(name, name) for name in names)]]
    rows.append([document["name"], *(_percent(means[name]) for name in names)])
    rows += [[model, *(f"{row[name]:.1f}" for name in names)] for model, row in paper.items()]
    lines = aligned(rows)
    lines.insert(1, "-" * len(lines[0]))
    if paper:
        lines.insert(3, "-" * len(lines[0]))
        lines.append(_wrapped(f"Below the second line: {PAPER}, Table 1."))
    return "\n".join(lines)


def _datasets_table(benchmark: Benchmark, document: dict[str, Any]) -> str:
    rows = [["data set", "group", "split", "% right", f"{document['level']:.0%} interval", "queries"]]
    for one in benchmark.datasets:
        if (found := document["datasets"].get(one.name)) is not None:
            known = found["low"] is not None
            interval = f"{_percent(found['low'])} to {_percent(found['high'])}" if known else "-"
            cells = [_percent(found["value"]), interval, f"{found['n']:,}" if found["n"] else "-"]
            rows.append([one.name, one.group, one.split or "-", *cells])
    lines = aligned(rows, left=3)
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return rows as lines whose columns stand below one another, the first ``left`` of them to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligns = ["<" if column < left else ">" for column in range(len(widths))]
    cells = [[f"{c:{a}{w}}" for c, a, w in zip(row, aligns, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in cells]


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, _WIDTH, break_on_hyphens=False)
