"""``unime check-data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unime_kedro.fetching.check import Report

#: source of ``unime fetch`` -> benchmark that it is; the two of MMEB have checks of their own
_BENCHMARKS = {
    "flickr30k": "Flickr30K",
    "coco": "COCO",
    "sharegpt4v": "ShareGPT4V",
    "urban1k": "Urban1K",
    "sugarcrepe": "SugarCrepe",
}


@click.command("check-data")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--env", "-e", help="Without FOLDER: what this environment's ingest reads.")
@click.option("--as", "kind", metavar="NAME", help="train, eval, or a source of `unime fetch`; found out by default.")
@click.option("--split", default="original", show_default=True, help="Of training pairs.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder that picture paths start from.")
@click.option(
    "--sample", type=click.IntRange(min=0), default=200, show_default=True, help="Pictures per data set to open."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sample.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check_data_command(
    folder: Path | None,
    env: str | None,
    kind: str | None,
    split: str,
    images: Path | None,
    sample: int,
    seed: int,
    as_json: bool,
) -> None:
    """Look whether downloaded data are whole, before anything costs money.

    FOLDER: training pairs or evaluation rows in MMEB's layouts, or another benchmark; without it what `ingest` reads.
    Reads every row, looks for every picture, and opens some. Exit status 1 when something is wrong.
    """
    import json

    from unime_kedro.command_errors import readable_errors

    with readable_errors():
        report = _check(folder, env, kind, split, images, sample, seed)
        click.echo(json.dumps(report.document(), indent=1) if as_json else _text(report))
    if report.problems:
        raise SystemExit(1)


def _check(
    folder: Path | None, env: str | None, kind: str | None, split: str, images: Path | None, sample: int, seed: int
) -> Report:
    from unime_kedro.errors import ConfigurationError
    from unime_kedro.fetching.check import check_benchmark, check_evaluation, check_training

    datasets = None
    if folder is None:
        folder, image_root, split, datasets = _of_environment(env)
        images, kind = images or image_root, "train"
    kind = (kind or _kind_of(folder, split)).removeprefix("mmeb-")
    if kind == "train":
        return check_training(folder, images or folder, split, datasets, sample=sample, seed=seed)
    if kind == "eval":
        usual = next((folder / name for name in ("eval_images", "images") if (folder / name).is_dir()), folder)
        return check_evaluation(folder, images or usual, sample=sample, seed=seed)
    if kind not in _BENCHMARKS:
        raise ConfigurationError(f"--as {kind}: expected train, eval, {', '.join(_BENCHMARKS)}.")
    return check_benchmark(_BENCHMARKS[kind], folder, images)


def _kind_of(folder: Path, split: str) -> str:
    """Find out what a folder holds: by the record of its fetch, else by its files, else by its name."""
    from unime_kedro.errors import DataError
    from unime_kedro.fetching.fetch import read_record

    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}. `unime fetch` brings published data.")
    if source := read_record(folder).get("source"):
        return str(source)
    if any(folder.glob("*/test-*.parquet")):
        return "eval"
    if any(folder.glob(f"*/{split}-*.parquet")):
        return "train"
    if folder.name.lower() in _BENCHMARKS:
        return folder.name.lower()
    raise DataError(
        f"{folder} holds neither <data set>/{split}-*.parquet nor <data set>/test-*.parquet. Of another benchmark say "
        f"which: --as {', '.join(_BENCHMARKS)}."
    )


def _of_environment(env: str | None) -> tuple[Path, Path, str, list[str] | None]:
    import unime_kedro.settings  # noqa: F401  (switches off usage statistics of what is imported below)
    from unime_kedro.notebook import project_context
    from unime_kedro.parameters import IngestParameters
    from unime_kedro.paths import resolve

    ingest = IngestParameters.model_validate(project_context(env=env).params["ingest"])
    return resolve(ingest.root), resolve(ingest.image_root), ingest.split, ingest.datasets


def _text(report: Report) -> str:
    """Return the report as people read it."""
    lines = [f"{report.folder}, read as {report.kind}"]
    table = report.datasets
    if table.height:
        width = max(8, *table["dataset"].str.len_chars().to_list())
        lines.append(
            f"{'data set':<{width}} {'rows':>9} {'published':>20} {'pictures':>9} {'missing':>8} {'opened':>7}"
        )
        lines += [
            f"{name:<{width}} {rows:>9,} {published or '':>20} {_number(pictures):>9} {_number(missing):>8} "
            f"{_number(opened):>7}"
            for name, rows, published, pictures, missing, opened, _ in table.iter_rows()
        ]
        lines.append(f"{table['rows'].sum():,} rows in {table.height} data sets")
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"PROBLEM {problem}" for problem in report.problems]
    lines.append("nothing is wrong" if not report.problems else f"{len(report.problems)} problems")
    return "\n".join(lines)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
