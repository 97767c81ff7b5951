"""What the picture of the pipelines shows: stages, and the tables, models and pages that they write and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unime_kedro.optional_inputs import TAG

if TYPE_CHECKING:
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

Kind = Literal["table", "model", "page"]

#: folder of the data root that holds models
_MODELS = "06_models"
#: endings of datasets that hold figures of a run, its course, and what it was made from
_LEFT_OUT = ("_metrics", "_history", "_origin", "_figures")


@dataclass(frozen=True)
class Row:
    """A stage.

    Attributes:
        name: Its pipeline.
        nodes: Names of the nodes that it runs and no stage before it, in the order of the work.
        leaves: What it writes and no other stage reads: (dataset, kind), pages last.
    """

    name: str
    nodes: tuple[str, ...]
    leaves: tuple[tuple[str, Kind], ...]


@dataclass(frozen=True)
class Rail:
    """Datasets of one stage that the same other stages read.

    Attributes:
        datasets: Their names, in the order in which they are written.
        kind: What they are.
        maker: Number of the row that writes them.
        readers: Number of every other row that reads them -> whether it can do without them.
    """

    datasets: tuple[str, ...]
    kind: Kind
    maker: int
    readers: Mapping[int, bool]


@dataclass
class _Use:
    """Where a dataset is written and read."""

    maker: int
    readers: dict[int, bool] = field(default_factory=dict)


def diagram(
    pipelines: Mapping[str, Pipeline], names: Iterable[str], catalog: Mapping[str, Any]
) -> tuple[list[Row], list[Rail]]:
    """Find out which stage reads what which other stage wrote.

    A node that an earlier stage has run already belongs to that one. Left out are parameters, folders of work, figures
    (``_metrics``, ``_history``) and digests (``_origin``), and what only goes from node to node in memory.

    Args:
        pipelines: All pipelines by name.
        names: Those that are drawn, in the order of the work.
        catalog: Configuration of every dataset, resolved.

    Returns:
        A row per stage, from above, and the rails by the row that writes them; of one row the longest first.
    """
    done: set[str] = set()
    stages: list[tuple[str, list[Node]]] = []
    for name in names:
        own = [node for node in pipelines[name].nodes if node.name not in done]
        done |= {node.name for node in own}
        stages.append((name, own))
    uses = _uses([nodes for _, nodes in stages], catalog)
    rows = []
    for number, (name, nodes) in enumerate(stages):
        alone = [(key, _kind(key, catalog)) for key, use in uses.items() if use.maker == number and not use.readers]
        alone.sort(key=lambda leaf: leaf[1] == "page")
        rows.append(Row(name, tuple(_node_name(node.name) for node in nodes), tuple(alone)))
    return rows, _rails(uses, catalog)


def _uses(stages: list[list[Node]], catalog: Mapping[str, Any]) -> dict[str, _Use]:
    """Return what is drawn, in the order in which it is written."""
    uses: dict[str, _Use] = {}
    for number, nodes in enumerate(stages):
        for dataset in (name for node in nodes for name in node.outputs):
            if _is_drawn(dataset, catalog):
                uses[dataset] = _Use(number)
    for number, nodes in enumerate(stages):
        for dataset, optional in _inputs(nodes):
            if dataset in uses and uses[dataset].maker != number:
                readers = uses[dataset].readers
                readers[number] = optional and readers.get(number, True)
    return uses


def _inputs(nodes: Iterable[Node]) -> Iterator[tuple[str, bool]]:
    """Yield every input, and whether its node can do without it."""
    for node in nodes:
        for dataset in node.inputs:
            yield dataset, TAG in node.tags


def _rails(uses: Mapping[str, _Use], catalog: Mapping[str, Any]) -> list[Rail]:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for dataset, use in uses.items():
        if use.readers:
            key = (use.maker, tuple(sorted(use.readers.items())), _kind(dataset, catalog))
            groups.setdefault(key, []).append(dataset)
    rails = [Rail(tuple(found), kind, maker, dict(readers)) for (maker, readers, kind), found in groups.items()]
    return sorted(rails, key=lambda rail: (rail.maker, -max(rail.readers)))


def _is_drawn(dataset: str, catalog: Mapping[str, Any]) -> bool:
    """Whether a dataset is a file and neither figures nor a digest."""
    entry = catalog.get(dataset)
    return isinstance(entry, Mapping) and "filepath" in entry and not dataset.endswith(_LEFT_OUT)


def _kind(dataset: str, catalog: Mapping[str, Any]) -> Kind:
    entry = catalog[dataset]
    if (entry.get("metadata") or {}).get("dvc") == "page":
        return "page"
    return "model" if f"/{_MODELS}/" in str(entry["filepath"]).replace("\\", "/") else "table"


def _node_name(name: str) -> str:
    """Return a node's name without the hash that Kedro gives to one that was not named: ``score__dab2e2c3``."""
    return re.sub(r"__[0-9a-f]{8}$", "", name)
