"""What a reader of the scores should know of a benchmark's data, found in the data."""

from __future__ import annotations

import polars as pl

from unime_kedro.evaluation.benchmarks.declarations import Benchmark
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates, Task
from unime_kedro.io.mmeb_eval import certain_queries


def notes_on(task: Task, benchmark: Benchmark) -> list[str]:
    """Return sentences on one data set; none where all is as published.

    They say how many queries cannot be right, because a wrong candidate has the content of the right one and a tie
    counts as wrong, how many cannot be wrong for want of other candidates, and where there are other numbers of
    pictures than were published. Contents are told apart by text and picture path here.
    """
    notes = _own(task) if isinstance(task, OwnCandidates) else _shared(task)
    if isinstance(task, SharedCandidates) and benchmark.pictures is not None:
        found = task.queries["group"].n_unique()
        if found != benchmark.pictures:
            notes.append(f"it has {found:,} pictures, the published set {benchmark.pictures:,}")
    return [f"{task.dataset}: {note}." for note in notes]


def _own(task: OwnCandidates) -> list[str]:
    same = task.contents.select("content_id", place=pl.col("content_id").first().over("text", "image"))
    candidates = task.queries.select("query_id", content_id="candidates").explode("content_id", empty_as_null=False)
    candidates = candidates.join(same, on="content_id", how="left", maintain_order="left")
    lists = candidates.group_by("query_id", maintain_order=True).agg(candidates="place")
    counts = certain_queries(lists)
    return _sentences(counts.never_right, counts.never_wrong, len(lists))


def _shared(task: SharedCandidates) -> list[str]:
    """Count queries all of whose right targets have the content of a wrong one."""
    found = task.targets.join(task.contents, on="content_id", how="left", maintain_order="left")
    clear = found.with_columns(clear=pl.col("group").n_unique().over("text", "image") == 1)
    groups = clear.group_by("group").agg(pl.col("clear").any())
    hopeless = task.queries.join(groups.filter(~pl.col("clear")), on="group", how="semi")
    alone = len(task.queries) if task.targets["group"].n_unique() == 1 else 0
    return _sentences(len(hopeless), alone, len(task.queries))


def _sentences(never_right: int, never_wrong: int, n: int) -> list[str]:
    notes = []
    if never_right:
        notes.append(
            f"{never_right:,} of {n:,} queries can never be right, a wrong candidate having the right one's content"
        )
    if never_wrong:
        notes.append(f"{never_wrong:,} of {n:,} queries can never be wrong, the right candidate being the only one")
    return notes
