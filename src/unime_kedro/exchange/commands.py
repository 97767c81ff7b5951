"""``unime export``, ``unime import-pool`` and ``unime import-scores``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext

#: names of :data:`unime_kedro.exchange.formats.FORMATS`, here so that ``unime --help`` loads no tables
FORMAT_NAMES = (
    "sentence-transformers",
    "ms-swift",
    "ms-swift-reranker",
    "tevatron",
    "tevatron-text",
    "flag-embedding",
)
_ENV = click.option("--env", "-e", help="Kedro's environment, whose data root is meant.")


@contextmanager
def _project(env: str | None) -> Iterator[KedroContext]:
    """Yield the project's context; errors of users are told in a line."""
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.command_errors import RunFailed, readable_errors
    from unime_kedro.failures import message_of
    from unime_kedro.notebook import project_context

    with readable_errors():
        try:
            yield project_context(env=env)
        except Exception as error:
            if (message := message_of(error)) is None:
                raise
            raise RunFailed(message) from error


@contextmanager
def _locked(context: KedroContext, *written: str) -> Iterator[None]:
    """Keep runs away from what is written, and from what it was read against, for the time of the block."""
    from unime_kedro.config import data_root
    from unime_kedro.run_locks import RunLocks
    from unime_kedro.tracking.files import files_of

    locks = RunLocks()
    files = files_of({"items", "queries", *written}, context.catalog)
    locks.take(
        data_root(context.config_loader, context.project_path),
        {name: (file, name in written) for name, file in files.items()},
    )
    try:
        yield
    finally:
        locks.release()


def _tables(context: KedroContext, *names: str) -> list[Any]:
    from unime_kedro.errors import DataError

    for name in names:
        if not context.catalog.exists(name):
            raise DataError(f"there is no {name} table below the data root; `kedro run --pipeline=mine` makes it.")
    return [context.catalog.load(name) for name in names]


@click.command("export")
@click.argument("format_", metavar="FORMAT", type=click.Choice(FORMAT_NAMES))
@click.argument("out", type=click.Path(path_type=Path))
@_ENV
@click.option("--negatives", type=click.IntRange(min=1), help="Per query; without it all that were mined.")
@click.option(
    "--images", type=click.Choice(["absolute", "relative"]), default="absolute", show_default=True,
    help="Paths of pictures: as they are on this machine, or relative to ingest.image_root.",
)  # fmt: skip
@click.option("--without-fallback", is_flag=True, help="No negatives drawn at random for queries that kept nothing.")
def export_negatives_command(
    format_: str, out: Path, env: str | None, negatives: int | None, images: str, without_fallback: bool
) -> None:
    """Write mined negatives with the judge's scores for another trainer: sentence-transformers, ms-swift, Tevatron,
    FlagEmbedding.

    OUT is a .parquet or .jsonl file, and a folder for tevatron. What each trainer reads, and how to start it:
    docs/exports.md.
    """
    with _project(env) as context:
        from unime_kedro.exchange.rows import mined_rows
        from unime_kedro.exchange.writing import export
        from unime_kedro.paths import resolve

        tables = _tables(context, "negatives", "queries", "items", "judge_scores")
        root = resolve(context.params["ingest"].image_root) if images == "absolute" else None
        rows = mined_rows(*tables, count=negatives, fallback=not without_fallback, image_root=root)
        files, exported = export(rows, format_, out)
        for file, table in zip(files, exported.tables.values(), strict=True):
            click.echo(f"wrote {file}: {len(table):,} rows, {file.stat().st_size / 2**20:.1f} MiB")
        for reason, count in exported.left_out.items():
            click.echo(f"left out: {count:,} queries, {reason}")


@click.command("import-pool")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_ENV
def import_pool_command(file: Path, env: str | None) -> None:
    """Take the candidates of another retriever for the pool.

    FILE is parquet with query_id, item_id and similarity: ids of queries.parquet and items.parquet, which
    `kedro run --pipeline=ingest` makes. Then `kedro run --pipelines=judge,select`.
    """
    with _project(env) as context:
        from unime_kedro.exchange.importing import file_digest, read_pool
        from unime_kedro.mining.lineage import corpus_digest, table_digest
        from unime_kedro.mining.retrieval import pool_metrics

        items, queries = _tables(context, "items", "queries")
        pool = read_pool(file, items, queries)
        origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool), "imported": file_digest(file)}
        tables = {"pool": pool, "pool_origin": origin, "pool_metrics": pool_metrics(pool)}
        _save(context, tables)
        click.echo(f"imported {len(pool):,} candidates of {pool['query_id'].n_unique():,} queries from {file}")
        click.echo("next: kedro run --pipelines=judge,select")


@click.command("import-scores")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_ENV
@click.option("--judge", "name", help="Who judged, for the record; without it the file's name.")
@click.option("--allow-missing", is_flag=True, help="Pairs without a score count as failures of the judge.")
def import_scores_command(file: Path, env: str | None, name: str | None, allow_missing: bool) -> None:
    """Take the scores of another judge for ours.

    FILE is parquet with query_id, item_id, and score in [0, 1] or yes_logit and no_logit: every query with its positive
    and with every item of its pool. Then `kedro run --pipeline=select`.
    """
    with _project(env) as context:
        from unime_kedro.exchange.importing import file_digest, read_scores
        from unime_kedro.mining.lineage import corpus_digest, table_digest
        from unime_kedro.mining.partial import whole_coverage

        items, queries, pool, pool_origin = _tables(context, "items", "queries", "pool", "pool_origin")
        origin = {"corpus": corpus_digest(items, queries), "pool": table_digest(pool)}
        _check_pool(pool_origin, origin)
        scores, errors = read_scores(file, items, queries, pool, missing=allow_missing)
        digest = file_digest(file)
        origin |= {
            "judge_scores": table_digest(scores), "model": name or file.name,
            "model_fingerprint": f"imported:{digest}", "temperature": "1.0",
        }  # fmt: skip
        metrics = {"pairs": len(scores) + len(errors), "errors": len(errors), "model_fingerprint": f"imported:{digest}"}
        # in this order: the guard of the scores looks at the errors
        tables = {
            "judge_errors": errors,
            "judge_coverage": whole_coverage(pool),
            "judge_scores": scores,
            "judge_origin": origin,
            "judge_metrics": metrics,
        }
        _save(context, tables)
        click.echo(f"imported {len(scores):,} scores from {file}, {len(errors):,} pairs without one")
        click.echo("next: kedro run --pipeline=select")


def _save(context: KedroContext, tables: dict[str, Any]) -> None:
    with _locked(context, *tables):
        for name, table in tables.items():
            context.catalog.save(name, table)


def _check_pool(made_from: dict[str, str], current: dict[str, str]) -> None:
    from unime_kedro.mining.lineage import check_lineage

    check_lineage(made_from, current, "pool.parquet", "kedro run --pipeline=pool` or `unime import-pool")
