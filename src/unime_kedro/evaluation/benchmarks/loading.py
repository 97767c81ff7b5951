"""From files on disk to tasks: whatever a benchmark's layout, what comes out has one of two forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unime_kedro.errors import DataError
from unime_kedro.evaluation.benchmarks.declarations import (
    SEE_SOURCE,
    Benchmark,
    DatasetDeclaration,
    Mean,
)
from unime_kedro.evaluation.benchmarks.notes import notes_on
from unime_kedro.evaluation.benchmarks.registry import BENCHMARKS, suggestion
from unime_kedro.evaluation.captions import CaptionPrompts, caption_tasks
from unime_kedro.evaluation.compositional import compositional_tasks
from unime_kedro.evaluation.embedders import own_candidates
from unime_kedro.evaluation.tasks import Task
from unime_kedro.io.captions import read_captions
from unime_kedro.io.long_captions import read_sharegpt4v, read_urban1k
from unime_kedro.io.mmeb_eval import read_eval_sets
from unime_kedro.io.sugarcrepe import read_sugarcrepe
from unime_kedro.mining.images import CheckImages, ProgressFactory
from unime_kedro.progress import progress as show_progress

#: group of data sets that nothing is known of
UNKNOWN = "unknown"
_TEST = "test-*.parquet"


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark with what is there of it.

    Attributes:
        benchmark: The declaration; made from the folder where the name is not known.
        tasks: Data sets that were read, in the declaration's order.
        image_root: Folder that the contents' picture paths are relative to.
        missing: Declared data sets that are not on disk, in the declaration's order; none that were not asked for.
        notes: What a reader of the scores should know of the data: how many queries nothing can be right or wrong
            in, other sizes than the published ones.
    """

    benchmark: Benchmark
    tasks: list[Task]
    image_root: Path
    missing: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _Source:
    """What the readers need: where to look, and how."""

    benchmark: Benchmark
    folder: Path
    image_root: Path
    options: dict[str, Any]

    @property
    def prompts(self) -> CaptionPrompts:
        assert self.benchmark.prompts is not None  # every layout of captions is declared with its prompts
        return self.benchmark.prompts


def load_benchmark(
    name: str,
    root: str | Path,
    image_root: str | Path | None = None,
    datasets: Sequence[str] | None = None,
    *,
    prompts: CaptionPrompts | None = None,
    check_images: CheckImages = "header",
    workers: int = 1,
    progress: ProgressFactory = show_progress,
) -> LoadedBenchmark:
    """Read a benchmark.

    Args:
        name: One of :data:`.registry.BENCHMARKS`; any other for data sets of one's own in MMEB's layout.
        root: The benchmark's folder, in the layout of its publishers (``unime benchmarks`` shows it).
        image_root: Folder that picture paths are relative to; None for the usual one.
        datasets: Names of data sets; None for all that are there.
        prompts: Other words around pictures and captions; None for the declared ones. Not for MMEB's layout, whose
            data bring their own.
        check_images: ``full`` decodes every picture, ``header`` its header only; either reads all bytes.
        workers: Processes that read pictures; 1 is none besides this one, 0 chooses.
        progress: How progress is shown.

    Raises:
        DataError: If the folder or a named data set is not there, none of the declared ones is, or what is there is
            not of the layout; names file, row and key, and what was expected.
    """
    root = Path(root)
    known = name in BENCHMARKS
    benchmark = BENCHMARKS[name] if known else _own(name, root)
    if prompts is not None and benchmark.prompts is not None:
        benchmark = replace(benchmark, prompts=prompts)
    folder = _folder(benchmark, root)
    present = _present(benchmark, folder)
    wanted = _wanted(benchmark, folder, present, datasets)
    images = Path(image_root) if image_root is not None else _image_root(benchmark, root, folder)
    options = {"check_images": check_images, "workers": workers, "progress": progress}
    source = _Source(benchmark, folder, images, options)
    found = {task.dataset: task for task in _READERS[benchmark.layout](source, wanted)}
    tasks = [found[one] for one in wanted]
    missing = [one for one in benchmark.names if datasets is None and one not in present]
    notes = [note for task in tasks for note in notes_on(task, benchmark)]
    return LoadedBenchmark(benchmark, tasks, images, missing, notes)


def _own(name: str, root: Path) -> Benchmark:
    """Declare data sets of one's own by what a folder holds."""
    names = _eval_sets(root)
    if not names:
        raise DataError(
            f"There is no benchmark {name!r}, and {root} holds no <data set>/{_TEST}, the layout for data sets of your "
            f"own. {suggestion(name, BENCHMARKS)}"
        )
    datasets = tuple(
        DatasetDeclaration(one, UNKNOWN, None, "precision_at_1", str(root), SEE_SOURCE, "none given") for one in names
    )
    return Benchmark(
        name=name,
        title=f"{name}: data sets of one's own",
        datasets=datasets,
        means=(Mean("all", names),) if "all" not in names else (),
        layout="mmeb",
        expects=f"<data set>/{_TEST} and images/",
        image_folders=("images", "eval_images"),
    )


def _eval_sets(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({file.parent.name for file in folder.glob(f"*/{_TEST}")}))


def _captions_file(benchmark: Benchmark, folder: Path) -> Path | None:
    return next((folder / name for name in benchmark.files if (folder / name).is_file()), None)


def _present(benchmark: Benchmark, folder: Path) -> tuple[str, ...]:
    """Return which declared data sets a folder holds, by the names of its files alone."""
    if benchmark.layout == "mmeb":
        there: Iterable[str] = _eval_sets(folder)
    elif benchmark.layout == "sugarcrepe":
        there = [name for name in benchmark.names if (folder / f"{name}.json").is_file()]
    elif benchmark.layout == "urban1k":
        there = benchmark.names if (folder / "caption").is_dir() else ()
    else:
        there = benchmark.names if _captions_file(benchmark, folder) else ()
    found = set(there)
    return tuple(name for name in benchmark.names if name in found)


def _folder(benchmark: Benchmark, root: Path) -> Path:
    """Return the folder at or below the root that holds most of the data sets."""
    if not root.is_dir():
        raise DataError(f"The folder {root} of {benchmark.name} does not exist. Expected in it: {benchmark.expects}.")
    # max takes the first of equals, so that the root itself wins
    return max((root / inner for inner in benchmark.inside), key=lambda folder: len(_present(benchmark, folder)))


def _wanted(benchmark: Benchmark, folder: Path, present: Sequence[str], datasets: Sequence[str] | None) -> list[str]:
    """Return which data sets to read, in the declaration's order; those that are not declared come last."""
    if datasets is None:
        if not present:
            holds = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
            raise DataError(
                f"None of {benchmark.name}'s data sets is in {folder}. Expected there: {benchmark.expects}. It holds "
                f"{holds}. {_hint(benchmark, folder)}"
            )
        return list(present)
    if not datasets:
        raise DataError(f"{benchmark.name}: no data sets are asked for; leave datasets out (null) for all.")
    for name in datasets:
        undeclared = name not in benchmark.names
        if undeclared and not (benchmark.layout == "mmeb" and name in _eval_sets(folder)):
            raise DataError(f"{benchmark.name} has no data set {name!r}. {suggestion(name, benchmark.names)}")
        if not undeclared and name not in present:
            raise DataError(f"Data set {name!r} of {benchmark.name} is not in {folder}. Expected: {benchmark.expects}.")
    asked = set(datasets)
    declared = [name for name in benchmark.names if name in asked]
    return declared + sorted(asked - set(declared))


def _hint(benchmark: Benchmark, folder: Path) -> str:
    if benchmark.layout == "captions" and any(folder.glob("data/*.parquet")):
        return f"Pictures inside parquet files are written out by: unime benchmarks --unpack {folder} <new folder>"
    return f"It is published at {benchmark.repository}." if benchmark.repository else ""


def _image_root(benchmark: Benchmark, root: Path, folder: Path) -> Path:
    """Return the usual folder of pictures that is there; the first one where none is, for the reader's error."""
    places = [base / name for name in benchmark.image_folders for base in dict.fromkeys((root, folder))]
    return next((place for place in places if place.is_dir()), places[0])


def _read_mmeb(source: _Source, wanted: Sequence[str]) -> Sequence[Task]:
    return [own_candidates(one) for one in read_eval_sets(source.folder, source.image_root, wanted, **source.options)]


def _read_sugarcrepe(source: _Source, wanted: Sequence[str]) -> Sequence[Task]:
    entries = read_sugarcrepe(source.folder, source.image_root, wanted, **source.options)
    return compositional_tasks(entries, source.prompts)


def _read_captions(source: _Source, wanted: Sequence[str]) -> Sequence[Task]:
    benchmark, folder, images = source.benchmark, source.folder, source.image_root
    file = _captions_file(benchmark, folder)
    if file is None:  # no list of captions, but a file for each
        found = read_urban1k(folder, images, **source.options)
    elif benchmark.layout == "sharegpt4v":
        found = read_sharegpt4v(file, images, first=benchmark.pictures or 1, **source.options)
    else:
        found = read_captions(file, images, first=benchmark.captions, **source.options)
    return caption_tasks(*found, source.prompts, dataset=benchmark.name)


_READERS: dict[str, Callable[[_Source, Sequence[str]], Sequence[Task]]] = {
    "mmeb": _read_mmeb,
    "captions": _read_captions,
    "sharegpt4v": _read_captions,
    "urban1k": _read_captions,
    "sugarcrepe": _read_sugarcrepe,
}
