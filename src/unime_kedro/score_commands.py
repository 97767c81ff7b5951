"""``unime benchmarks`` and ``unime scores``: what can be evaluated on, and scores that others measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unime_kedro.command_errors import readable_errors

if TYPE_CHECKING:
    from unime_kedro.evaluation.benchmarks.declarations import Benchmark


@click.command("benchmarks")
@click.argument("name", required=False)
@click.option(
    "--unpack",
    type=(click.Path(exists=True, file_okay=False, path_type=Path), click.Path(path_type=Path)),
    metavar="FROM TO",
    help="Write pictures out of parquet files (royokong/flickr30k_test, royokong/coco_test) as CSV and files.",
)
def benchmarks_command(name: str | None, unpack: tuple[Path, Path] | None) -> None:
    """Show the benchmarks that are known, or the data sets of NAME."""
    from unime_kedro.evaluation.benchmarks.registry import BENCHMARKS, find_benchmark

    with readable_errors():
        if unpack is not None:
            from unime_kedro.io.hub_pictures import unpack_pictures

            click.echo(f"{unpack_pictures(*unpack):,} pictures with captions written to {unpack[1]}")
        elif name is None:
            click.echo(_overview(BENCHMARKS.values()))
        else:
            click.echo(_details(find_benchmark(name)))


#: columns of the overview and their widths; 98 characters with two between them
_COLUMNS = {"benchmark": 13, "data sets": 9, "layout on disk": 46, "licence": 24}


def _overview(benchmarks: Iterable[Benchmark]) -> str:
    """Return all benchmarks as a table, whose cells take as many lines as they need."""
    lines = [*_row(list(_COLUMNS)), "-" * (sum(_COLUMNS.values()) + 2 * (len(_COLUMNS) - 1))]
    for one in benchmarks:
        lines += [*_row([one.name, str(len(one.datasets)), one.expects, _licences(one)]), ""]
    return "\n".join([*lines, "Their data sets: unime benchmarks NAME. Where the facts are from: docs/benchmarks.md."])


def _row(cells: Sequence[str]) -> list[str]:
    widths = _COLUMNS.values()
    lines = zip_longest(*(_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)), fillvalue="")
    return ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _licences(benchmark: Benchmark) -> str:
    found = list(dict.fromkeys(one.licence for one in benchmark.datasets))
    return found[0] if len(found) == 1 else "by data set"


def _details(benchmark: Benchmark) -> str:
    """Return a benchmark's data sets, a block of lines for each group."""
    lines = [click.style(benchmark.title, bold=True)]
    lines += _field("on disk", benchmark.expects)
    if benchmark.repository:
        revision = next((one.revision for one in benchmark.datasets if one.revision), None)
        lines += _field("from", benchmark.repository)
        lines += _field("revision", revision or "none verified")
    for group in dict.fromkeys(one.group for one in benchmark.datasets):
        members = [one for one in benchmark.datasets if one.group == group]
        lines += ["", click.style(group, bold=True)]
        width = max(len(one.name) for one in benchmark.datasets)
        for one in members:
            head = f"  {one.name.ljust(width)}  {(one.split or '').ljust(3)}  "
            lines += _hanging(head, f"{one.citation}. {one.licence}")
            lines += _hanging(" " * len(head), one.source)
    if benchmark.means:
        means = ", ".join(f"{mean.name} ({len(mean.members)})" for mean in benchmark.means)
        lines += ["", *_hanging("means of data sets: ", means)]
    return "\n".join(lines)


def _field(label: str, text: str) -> list[str]:
    return _hanging(f"  {label.ljust(8)} ", text)


def _hanging(head: str, text: str, width: int = 100) -> list[str]:
    """Return a text in lines of at most ``width``, the first behind ``head`` and the others below its text."""
    lines = _wrap(text, width - len(head))
    return [(head if place == 0 else " " * len(head)) + line for place, line in enumerate(lines)]


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


@click.group("scores")
def scores_group() -> None:
    """Scores that other programs measured."""


@scores_group.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--benchmark", default="MMEB", show_default=True, help="Which benchmark the scores are of.")
@click.option("--name", help="What to call the model. Without it the name of PATH.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of the usual one.")
def import_scores_command(path: Path, benchmark: str, name: str | None, out: Path | None) -> None:
    """Read scores and show a benchmark's means of them beside the paper's.

    PATH is a folder of <data set>_score.json, as the evaluation scripts of VLM2Vec and UniME-V2 write them, or a CSV
    file with columns dataset and score, or of one row whose columns are data sets. The result is saved for the report,
    as <data root>/08_reporting/imported_scores/<name>.json.
    """
    from unime_kedro.atomic import atomic_write
    from unime_kedro.evaluation.benchmarks.imported import format_imported, import_scores
    from unime_kedro.io.json_text import write_json

    with readable_errors():
        document = import_scores(path, benchmark, name)
        target = out or _reporting() / "imported_scores" / f"{_file_name(document['name'])}.json"
        with atomic_write(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
            write_json(document, stream)
        click.echo(format_imported(document))
        click.echo(f"\nwrote {target}")


def _reporting() -> Path:
    from unime_kedro.config import environment_variable
    from unime_kedro.paths import resolve

    return resolve(environment_variable("UNIME_DATA_ROOT", "data") or "") / "08_reporting"


def _file_name(name: str) -> str:
    """Return a model's name as that of a file; hub ids have a slash."""
    return "".join(letter if letter.isalnum() or letter in "-_. " else "-" for letter in name).lstrip(".") or "scores"
