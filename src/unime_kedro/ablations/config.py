"""The keys of ``ablations.yml``, checked.

A group compares arms. An arm is a set of parameters by dotted key; the group names the keys that may differ, and
everything else is the same for all arms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from unime_kedro.config import Sources, model_faults, raise_faults
from unime_kedro.errors import ConfigurationError

#: the stages whose parameters may differ, in the order in which they run. What comes before them draws or reads the
#: corpus, which all arms share
STAGES = ("pool", "judge", "select", "train")
#: file name of the groups, and the start of it that :class:`Sources` looks for (not that of the tuned values)
FILE, KIND = "ablations.yml", "ablations."

#: no arm may be called like the folder of the runs that tune arms
RESERVED = "tune"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=60)]
Seed = Annotated[int, Field(ge=0)]
Value = Any


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Column(_Block):
    """One figure of the result table."""

    title: str = Field(min_length=1)
    keys: Annotated[list[str], BeforeValidator(_one_or_many)] = Field(
        min_length=1, description="keys of the metrics; the mean of several. Arms that have none get no figure"
    )
    percent: bool = Field(default=True, description="shown times 100, as the paper does")


#: what `evaluation.mini_mmeb` measures; keys that a benchmark lacks leave their column out
COLUMNS = {
    "precision_at_1": Column(title="P@1", keys=["precision_at_1/all"]),
    "in_distribution": Column(title="IND", keys=["precision_at_1/in_distribution"]),
    "out_of_distribution": Column(title="OOD", keys=["precision_at_1/out_of_distribution"]),
    "classification": Column(title="classification", keys=["precision_at_1/classification"]),
    "vqa": Column(title="VQA", keys=["precision_at_1/vqa"]),
    "retrieval": Column(title="retrieval", keys=["precision_at_1/retrieval"]),
    "grounding": Column(title="grounding", keys=["precision_at_1/visual_grounding"]),
    "captions": Column(title="captions R@1", keys=["recall_at_1/EmojiCaptions_i2t", "recall_at_1/EmojiCaptions_t2i"]),
    "compositional": Column(title="compositional", keys=["compositional/all"]),
}


class Results(_Block):
    """Where an arm's results are: datasets of the catalog."""

    metrics: list[str] = Field(
        default=["trained_metrics", "train_metrics"], min_length=1, description="datasets; earlier ones win"
    )
    predictions: str | None = Field(
        default="trained_predictions", description="table of single queries, for intervals; null: none"
    )
    columns: dict[Name, Column] = Field(default=COLUMNS, min_length=1, description="the first is the one compared")


class Paper(_Block):
    """The paper's figures, shown beside ours."""

    table: str
    model: str
    columns: list[str] = Field(min_length=1)
    figures: dict[str, list[float]] = Field(description="arm -> one figure per column")


class Tune(_Block):
    """A key that each arm has its own best value of, found on validation data with the same budget for all."""

    key: str
    values: list[Value] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    metrics: str = Field(default="train_metrics", description="dataset that holds the metric; nothing after it is run")
    metric: str = Field(default="validation_precision_at_1", description="its key there; more is better")


class Group(_Block):
    """Arms that are compared."""

    title: str
    seeds: list[Seed] = Field(min_length=1)
    keys: list[str] = Field(min_length=1, description="the only keys in which arms may differ")
    arms: dict[Name, dict[str, Value]] = Field(min_length=1, description="the first one is what others are compared to")
    common: dict[str, Value] = Field(default={}, description="parameters of all arms, by dotted key")
    seed_key: str = Field(default="train.seed")
    last_stage: str = Field(default="train", description="every arm runs up to this stage")
    tune: Tune | None = None
    paper: Paper | None = None
    results: Results = Results()

    @property
    def reference(self) -> str:
        """The arm that others are compared to."""
        return next(iter(self.arms))


def read_groups(loader: Any, conf_source: Path, env: str | None) -> dict[str, Group]:
    """Return every group of ``ablations.yml``; an environment's group replaces that of ``base`` as a whole.

    Args:
        loader: Kedro's configuration loader.
        conf_source: Folder of the environments.
        env: The environment on top of ``base``; None for ``local``.

    Raises:
        ConfigurationError: Lists every fault with key, file and line.
    """
    from kedro.config import MissingConfigException

    loader.config_patterns["ablations"] = [FILE]
    try:
        raw = loader["ablations"]
    except MissingConfigException as error:
        raise ConfigurationError(f"there is no {conf_source / 'base' / FILE}: it names what can be compared") from error
    sources = Sources(conf_source, env, None, KIND)
    found, faults = {}, []
    for name, values in raw.items():
        problems = model_faults(Group, values, sources, (name,))
        if not problems:
            found[str(name)] = group = Group.model_validate(values)
            problems = [f"{text}{sources.where(path)}" for path, text in _contradictions(str(name), group)]
        faults += problems
    raise_faults(faults, FILE)
    return found


_Fault = tuple[tuple[str | int, ...], str]


def _contradictions(name: str, group: Group) -> Iterator[_Fault]:
    """Yield what is wrong between the keys of a group: where, and what."""
    yield from _key_faults(name, group)
    seen: dict[str, str] = {}
    for arm, values in group.arms.items():
        if arm == RESERVED:
            yield (
                (name, "arms", arm),
                f"{name}.arms.{arm}: the name is taken by the folder of tuning runs; choose another",
            )
        for key in values:
            if key not in group.keys:
                known = ", ".join(group.keys)
                yield (
                    (name, "arms", arm, key),
                    f"{name}.arms.{arm}: {key} is not among the keys in which arms may differ ({known})",
                )
        twin = seen.setdefault(repr(sorted(values.items())), arm)
        if twin != arm:
            yield (name, "arms", arm), f"{name}.arms.{arm}: the same as {twin}"
    lists = [("seeds", group.seeds), *([("tune", group.tune.seeds)] if group.tune else [])]
    for where, seeds in lists:
        if len(set(seeds)) < len(seeds):
            yield (name, where), f"{name}.{where}: a seed is named twice in {seeds}"
    if group.paper:
        for arm, figures in group.paper.figures.items():
            path = (name, "paper", "figures", arm)
            if arm not in group.arms:
                yield path, f"{name}.paper.figures.{arm}: there is no such arm; there are {', '.join(group.arms)}"
            elif len(figures) != len(group.paper.columns):
                yield path, f"{name}.paper.figures.{arm}: {len(figures)} figures for {len(group.paper.columns)} columns"
    if group.last_stage not in STAGES:
        yield (name, "last_stage"), f"{name}.last_stage = {group.last_stage}: expected one of {', '.join(STAGES)}"


def _key_faults(name: str, group: Group) -> Iterator[_Fault]:
    """Yield keys outside the stages that arms run, and keys that are set from two sides."""
    places: list[tuple[tuple[str | int, ...], str]] = [((name, "keys", i), key) for i, key in enumerate(group.keys)]
    places += [((name, "common", key), key) for key in group.common]
    places += [((name, "tune", "key"), group.tune.key)] if group.tune else []
    places += [((name, "seed_key") if group.seed_key != "train.seed" else (name,), group.seed_key)]
    for path, key in places:
        if key.split(".")[0] not in STAGES or "." not in key:
            yield path, f"{name}: {key} cannot be set here, expected a key of {', '.join(STAGES)}, such as train.steps"
    for i, (path, key) in enumerate(places):
        for _, other in places[:i]:
            if key == other or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                what = f"{key} twice" if key == other else f"{other} and {key}, which is part of the other"
                yield path, f"{name}: sets {what} (keys, common, tune.key and the seed's key must not overlap)"


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"a.b": 1}`` as ``{"a": {"b": 1}}``, the form of Kedro's runtime parameters."""
    found: dict[str, Any] = {}
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        block = found
        for part in parents:
            block = block.setdefault(part, {})
        block[last] = value
    return found
