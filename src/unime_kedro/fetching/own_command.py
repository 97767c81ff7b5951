"""``unime init-data``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init-data")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for data and results; data/<name> by default.")
@click.option("--name", help="Of the data set; the file's name by default.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder that picture paths start from; the file's.")
@click.option(
    "--meta-task",
    type=click.Choice(["classification", "vqa", "retrieval", "visual_grounding"]),
    default="retrieval",
    show_default=True,
    help="Under which results are summed up.",
)
def init_data_command(file: Path, out: Path | None, name: str | None, images: Path | None, meta_task: str) -> None:
    """Make your own pairs ready to be mined.

    FILE: parquet, jsonl, csv or tsv, a row per pair, with the columns query, query_image, positive, positive_image (or
    MMEB-train's names). Every row is checked; nothing is written if one is bad.
    """
    from unime_kedro.command_errors import readable_errors

    with readable_errors():
        from unime_kedro.fetching.own_pairs import write_own_pairs
        from unime_kedro.paths import resolve

        name = name or file.stem
        out = (out or resolve("data") / name).absolute()
        root = out / "01_raw" / "own"
        image_root = (images or file.parent).absolute()
        done = write_own_pairs(file, root, name, image_root)
        click.echo(
            f"{done.rows:,} pairs, {done.with_query_picture:,} queries and {done.with_positive_picture:,} positives "
            f"with a picture; {done.placeholders_added:,} texts were given the mark of theirs"
        )
        click.echo(f"written to {done.file}")
        parameters = f"ingest.root={root},ingest.image_root={image_root},ingest.meta_tasks.{name}={meta_task}"
        click.echo("next, with judge.model and pool.model of your choice (the embedded ones know drawings only):")
        click.echo(f"  UNIME_DATA_ROOT={out} kedro run --pipeline=mine --params={parameters}")
