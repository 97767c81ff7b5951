"""Nodes of pipeline ``report``. Any input may be None: it was not made."""

import logging
from typing import Any

import polars as pl

from unime_kedro.parameters import EvaluateParameters, JudgeParameters, ReportParameters
from unime_kedro.pipelines.report import parts

log = logging.getLogger(__name__)

History = list[dict[str, Any]]


def compare(
    predictions: pl.DataFrame | None, evaluate: EvaluateParameters, report: ReportParameters
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Compare pairs of models over the same queries, by benchmark and data set.

    Args:
        predictions: The predictions table.
        evaluate: Level and resamples of intervals.
        report: Which models are compared.

    Returns:
        Differences with intervals and tests (see :data:`.reporting.comparisons.SCHEMA`), and those of means as metrics.
    """
    from unime_kedro.evaluation.comparison import compare_models
    from unime_kedro.reporting.comparisons import comparison_metrics, comparison_rows, no_comparisons, pairs_of

    table = no_comparisons()
    for first, second in report.comparisons:
        for benchmark, one, other in pairs_of(predictions, first, second, list(evaluate.benchmarks)):
            found = compare_models(one, other, level=evaluate.level, resamples=evaluate.resamples, seed=evaluate.seed)
            table = table.vstack(comparison_rows(found, first, second, benchmark))
    return table, comparison_metrics(table)


def project(
    evaluate_metrics: dict[str, Any] | None,
    rankings: pl.DataFrame | None,
    evaluated_queries: pl.DataFrame | None,
    evaluate: EvaluateParameters,
    report: ReportParameters,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Embed a sample of the candidates by some of the models, and look where texts and pictures lie.

    Args:
        evaluate_metrics: Which models were evaluated.
        rankings: The rankings table: what the candidates are.
        evaluated_queries: Where their pictures are.
        evaluate: The models and how contents are put to them.
        report: Which models, how many contents.

    Returns:
        model, modality, dataset, x, y; and per model the distance between the centres (see
        :func:`.evaluation.projection.modality_gap`).
    """
    from unime_kedro.pipelines.report.embedding import embed_sample, sample_contents
    from unime_kedro.reporting.embeddings import no_projection, projected

    contents = sample_contents(rankings, evaluated_queries, report.projection_contents, report.seed)
    if contents["modality"].n_unique() < 2:
        log.info("no projection of texts and pictures: expected candidates of both kinds")
        return no_projection(), {}
    evaluated = {name: known.get("_") or {} for name, known in (evaluate_metrics or {}).items()}
    fingerprints = {name: evaluated[name].get("fingerprint") for name in report.projection_models if name in evaluated}
    vectors = embed_sample(contents, fingerprints, evaluate)
    return projected(contents, vectors)


def draw(
    comparisons: pl.DataFrame,
    ablation_results: dict[str, Any],
    judge_scores: pl.DataFrame | None,
    train_history: History | None,
    rerank_history: History | None,
    projection: pl.DataFrame,
    projection_metrics: dict[str, Any],
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Draw every figure that there are data for.

    Returns:
        name -> PNG, and name -> SVG element for the page.
    """
    from unime_kedro.reporting.ablations import ablation
    from unime_kedro.reporting.comparisons import by_pair
    from unime_kedro.reporting.drawing import Drawings
    from unime_kedro.reporting.figures import ablation_figure, curves_figure, differences_figure, projection_figure
    from unime_kedro.tracking.plots import judge_score_figure

    drawings = Drawings()
    for place, (key, rows) in enumerate(by_pair(comparisons).items(), 1):
        words = f"differences of {key[0]} and {key[1]} on {key[2]} by data set; the table below has the figures"
        drawings.add(f"differences_{place}", differences_figure(rows, key[0], key[1]), words)
    for group in map(ablation, ablation_results.values()):
        drawings.add(f"ablation_{group.name}", ablation_figure(group), f"arms of {group.name}; figures below")
    if judge_scores is not None and len(judge_scores):
        drawings.add("judge_scores", judge_score_figure(judge_scores), "histograms of the judge's scores")
    for name, history in (("train", train_history), ("rerank", rerank_history)):
        drawings.add(f"{name}_curves", curves_figure(history or []), f"{name}: loss and validation by step")
    if len(projection):
        drawings.add("projection", projection_figure(projection, projection_metrics), "texts and pictures in a plane")
    return drawings.pngs, drawings.svgs


def write(
    evaluate_metrics: dict[str, Any] | None,
    comparisons: pl.DataFrame,
    ablation_results: dict[str, Any],
    projection_metrics: dict[str, Any],
    predictions: pl.DataFrame | None,
    rankings: pl.DataFrame | None,
    evaluated_queries: pl.DataFrame | None,
    leakage_metrics: dict[str, Any] | None,
    judge_card_metrics: dict[str, Any] | None,
    judge_origin: dict[str, Any] | None,
    trained_model: dict[str, Any] | None,
    reranker: dict[str, Any] | None,
    imported_scores: dict[str, Any],
    report_drawings: dict[str, str],
    report_origins: dict[str, Any],
    evaluate: EvaluateParameters,
    judge: JudgeParameters,
    report: ReportParameters,
) -> str:
    """Put everything on one page."""
    from unime_kedro.reporting.ablations import ablation
    from unime_kedro.reporting.comparisons import by_pair
    from unime_kedro.reporting.page import Content, count_table, main_figures, render_report
    from unime_kedro.reporting.results import results_tables

    metrics = evaluate_metrics or {}
    records = {"judge_origin": judge_origin, "trained_model": trained_model, "reranker": reranker}
    means, paper, table = parts.published()
    cases, pictures = parts.cases(predictions, rankings, evaluated_queries, report)
    return render_report(
        Content(
            title="UniME-V2: report",
            facts=parts.facts(report_origins, report),
            notes=parts.notes(evaluate, judge, metrics),
            models=parts.models(metrics),
            results=results_tables(metrics, means, paper, imported_scores),
            paper=table,
            differences=by_pair(comparisons),
            level=evaluate.level,
            ablations=[ablation(document) for document in ablation_results.values()],
            gaps=projection_metrics,
            projected=parts.projected_words(projection_metrics),
            cases=cases,
            cases_seed=report.seed,
            leakage=count_table(leakage_metrics) if leakage_metrics else None,
            judge_card=main_figures(judge_card_metrics or {}),
            svgs=report_drawings,
            sources=parts.sources(report_origins, records),
            pictures=pictures,
        )
    )
