"""What the report's nodes look up: the paper's figures, the models' facts, where files come from."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from unime_kedro.own_data import is_embedded_model
from unime_kedro.parameters import EvaluateParameters, JudgeParameters, ReportParameters
from unime_kedro.paths import project_root
from unime_kedro.reporting.cases import Faces, Pair, case_views, choose_cases
from unime_kedro.reporting.page import SECTIONS, record_line, source_lines
from unime_kedro.reporting.results import FACTS

#: section of the page -> datasets behind it
SOURCES = {
    "results": ["evaluate_metrics"],
    "differences": ["predictions"],
    "judge": ["judge_scores"],
    "training": ["train_history", "rerank_history"],
    "embeddings": ["rankings"],
    "cases": ["predictions", "rankings", "evaluated_queries"],
    "leakage": ["leakage_metrics"],
    "judge-card": ["judge_card_metrics"],
}
#: documents in which a pipeline says what it made a thing from -> section of the page, and what that thing is
RECORDS = {
    "judge_origin": ("judge", "judge_scores were made from"),
    "trained_model": ("training", "the trained embedder"),
    "reranker": ("training", "the trained reranker"),
}
#: benchmarks of the same shape as MMEB, whose tables show the paper's rows for their shape
LIKE_MMEB = ("mini-MMEB",)
TINY_NOTE = (
    "The embedded models are tiny and trained from nothing on synthetic scenes of drawings. Their figures show that "
    "the method and its measurements work; they say nothing about models of the paper's size."
)


def published() -> tuple[dict[str, list[str]], dict[str, dict[str, dict[str, float]]], str]:
    """Return benchmark -> names of its means, benchmark -> rows of the paper, and where those are from."""
    from unime_kedro.evaluation.benchmarks import BENCHMARKS, PAPER, PAPER_ROWS

    means = {name: [mean.name for mean in benchmark.means] for name, benchmark in BENCHMARKS.items()}
    return means, PAPER_ROWS | dict.fromkeys(LIKE_MMEB, PAPER_ROWS["MMEB"]), f"{PAPER}, Table 1"


def facts(origins: Mapping[str, Any], report: ReportParameters) -> dict[str, str]:
    """Return what the page's head says of this very run."""
    from unime_kedro.tracking.provenance import code_commit, code_tags, command_line, git_tags

    root = project_root()
    tags = git_tags(root) | code_tags(root)
    commit = code_commit(tags)[:12] or "none"
    changed = " with changed files" if tags.get("git.dirty") == "true" else ""
    return {
        "Command": command_line(),
        "Commit": f"{commit}{changed}",
        "Seed of samples": str(report.seed),
        "Files read": str(len(origins)),
    }


def notes(evaluate: EvaluateParameters, judge: JudgeParameters, metrics: Mapping[str, Any]) -> list[str]:
    """Return what must be known before the numbers are believed: which models are tiny ones."""
    names = [judge.model]
    for name, model in evaluate.models.items():
        known = (metrics.get(name) or {}).get(FACTS) or {}
        names += [model.model, str(known.get("base_model") or "")] if model is not None else []
    return [TINY_NOTE] if any(name and is_embedded_model(name) for name in names) else []


def models(metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return model -> folder, fingerprint, reranker and its fingerprint, "" for what is not known."""
    keys = ("folder", "fingerprint", "reranker", "reranker_fingerprint")
    return {
        name: {key: str((found.get(FACTS) or {}).get(key) or "") for key in keys} for name, found in metrics.items()
    }


def cases(
    predictions: pl.DataFrame | None,
    rankings: pl.DataFrame | None,
    queries: pl.DataFrame | None,
    report: ReportParameters,
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Choose and view wins and losses of every pair of models; nothing without the three tables.

    Returns:
        pair, wins and losses of each pair, and the page's pictures.
    """
    if predictions is None or rankings is None or queries is None:
        return [], []
    faces = Faces(sorted(queries["image_root"].unique()))
    found = []
    for first, second in report.comparisons:
        pair = choose_cases(predictions, first, second, n=report.cases, seed=report.seed)
        found.append({"pair": pair} | _views(pair, queries, rankings, faces, report.case_candidates))
    return [one for one in found if one["pair"].n], faces.encoded()


def _views(pair: Pair, queries: pl.DataFrame, rankings: pl.DataFrame, faces: Faces, top: int) -> dict[str, Any]:
    shown = {"wins": pair.wins, "losses": pair.losses}
    names = (pair.first, pair.second)
    return {kind: case_views(part, names, queries, rankings, faces, top=top) for kind, part in shown.items()}


def projected_words(gaps: Mapping[str, Mapping[str, float]]) -> str:
    """Say what was projected."""
    if not gaps:
        return ""
    one = next(iter(gaps.values()))
    return (
        f"{one['texts']:,} texts and {one['pictures']:,} pictures among the candidates of the evaluation, drawn at "
        "random, the data sets taking turns."
    )


def sources(origins: Mapping[str, Any], records: Mapping[str, Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """Return section -> lines on the files behind it.

    Args:
        origins: dataset -> its hash, and the run that wrote it.
        records: What datasets of :data:`RECORDS` say of themselves.
    """
    found = {section.id: source_lines(origins, SOURCES.get(section.id, [])) for section in SECTIONS}
    for name, (section, what) in RECORDS.items():
        found[section] += record_line(what, records.get(name))
    return found
