"""What a benchmark is: its data sets with source, licence and citation, where it lies on disk, what is averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unime_kedro.errors import ConfigurationError
from unime_kedro.evaluation.captions import CaptionPrompts

Split = Literal["IND", "OOD"]
Metric = Literal["precision_at_1", "recall_at_1", "accuracy"]
Layout = Literal["mmeb", "captions", "sharegpt4v", "urban1k", "sugarcrepe"]

#: stands for a licence that could not be found
SEE_SOURCE = "see source"


@dataclass(frozen=True)
class DatasetDeclaration:
    """One data set of a benchmark; where each fact was found is in docs/benchmarks.md.

    Attributes:
        name: Its name, which for MMEB is its folder's.
        group: MMEB: the meta-task; SugarCrepe: ``add``, ``replace`` or ``swap``; captions: ``i2t`` or ``t2i``.
        split: ``IND`` (the benchmark has training pairs of it), ``OOD`` (it has none), None where nothing is said.
        metric: What is reported, a share of queries.
        source: Address of the publisher.
        licence: Of the data, as its publisher states it; :data:`SEE_SOURCE` where that could not be found.
        citation: Authors, venue, year.
        revision: Commit of the repository that ``Benchmark.repository`` names; None where none could be verified.
    """

    name: str
    group: str
    split: Split | None
    metric: Metric
    source: str
    licence: str
    citation: str
    revision: str | None = None


class Mean(NamedTuple):
    """An unweighted mean over data sets: its name, and the names of all its members."""

    name: str
    members: tuple[str, ...]


class MeanValue(NamedTuple):
    """A mean's value, None unless there is a value for every member.

    Attributes:
        name: The mean's name.
        value: In the unit of the values.
        members: Names of all data sets that it is over.
        missing: Members without a value, in the order of ``members``.
    """

    name: str
    value: float | None
    members: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: data, no code.

    Attributes:
        name: As in the parameters.
        title: One line for people.
        datasets: In the order in which they are shown.
        means: What is averaged.
        layout: Which reader understands it.
        expects: The layout on disk in words, relative to the benchmark's folder.
        repository: Where it is downloaded.
        prompts: The words around pictures and captions; None where the data bring theirs.
        image_folders: Where pictures usually are, below the benchmark's folder; the first that exists is taken.
        inside: Folders below the benchmark's in which its files may lie instead ("" is the folder itself).
        files: Names of the file that holds the captions, in the order of preference.
        pictures: How many pictures the published set has; None where it is not said.
        captions: How many captions of a picture are used, the first ones; None for all.
    """

    name: str
    title: str
    datasets: tuple[DatasetDeclaration, ...]
    means: tuple[Mean, ...]
    layout: Layout
    expects: str
    repository: str = ""
    prompts: CaptionPrompts | None = None
    image_folders: tuple[str, ...] = ("images",)
    inside: tuple[str, ...] = ("",)
    files: tuple[str, ...] = ()
    pictures: int | None = None
    captions: int | None = None

    def __post_init__(self) -> None:
        names = [one.name for one in self.datasets]
        means = [mean.name for mean in self.means]
        if len(set(names)) < len(names) or len(set(means)) < len(means) or set(names) & set(means):
            raise ConfigurationError(f"benchmark {self.name}: a data set or mean has the name of another one.")
        for mean in self.means:
            if not mean.members or (unknown := sorted(set(mean.members) - set(names))):
                found = ", ".join(unknown) if mean.members else "no members"
                raise ConfigurationError(f"benchmark {self.name}, mean {mean.name}: {found}; expected its data sets.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(one.name for one in self.datasets)


def means_of(benchmark: Benchmark, values: Mapping[str, float]) -> list[MeanValue]:
    """Average data sets as a benchmark declares it: every data set counts the same, however many queries it has.

    A mean with a missing member has no value: over what is left it would be another figure, and not comparable.

    Args:
        benchmark: Its declaration.
        values: Data set -> value; others than the benchmark's are ignored.

    Returns:
        One per declared mean, in order.
    """
    found = []
    for mean in benchmark.means:
        missing = tuple(name for name in mean.members if name not in values)
        value = None if missing else math.fsum(values[name] for name in mean.members) / len(mean.members)
        found.append(MeanValue(mean.name, value, mean.members, missing))
    return found


def group_means(datasets: Sequence[DatasetDeclaration]) -> tuple[Mean, ...]:
    """Return one mean per group of data sets, in order of first mention."""
    groups = dict.fromkeys(one.group for one in datasets)
    return tuple(Mean(group, tuple(one.name for one in datasets if one.group == group)) for group in groups)


def mmeb_means(datasets: Sequence[DatasetDeclaration]) -> tuple[Mean, ...]:
    """Return the columns of the paper's Table 1: meta-tasks, IND, OOD, all."""
    sides = [Mean(side, tuple(one.name for one in datasets if one.split == side)) for side in ("IND", "OOD")]
    return (*group_means(datasets), *sides, Mean("all", tuple(one.name for one in datasets)))
