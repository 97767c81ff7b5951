"""The estimate: what a run has to compute, how long that takes, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError
from unime_kedro.planning.corpus import read_corpus
from unime_kedro.planning.devices import UTILISATION, Device, cpu, find_gpu, gpu_here
from unime_kedro.planning.interval import Interval, total
from unime_kedro.planning.models import PlannedModel, plan_model
from unime_kedro.planning.stages import stage_work

if TYPE_CHECKING:
    from unime_kedro.planning.corpus import Corpus
    from unime_kedro.planning.measuring import Measured
    from unime_kedro.planning.settings import Settings
    from unime_kedro.planning.work import Work

#: models below this many parameters are run on a CPU where nothing else is said
_SMALL = 30_000_000
#: what a speed that somebody states is taken to be known to
_STATED = 0.1


@dataclass(frozen=True)
class Speed:
    """What is known of how fast stages run; what is stated wins over what is assumed, what is measured over both.

    Attributes:
        gpu: Name of a GPU of the table, or ``cpu``; None for what is here.
        flops: Operations per second of the device at best, instead of the table's.
        pairs_per_second: Stated speed of judging, of one device.
        tokens_per_second: Stated speed of every stage, of one device, in tokens that are run.
        price: Of an hour of one device, in any currency; None where no money is asked for.
        measure: Queries of the real stage to run; 0 measures nothing.
    """

    gpu: str | None = None
    flops: float | None = None
    pairs_per_second: float | None = None
    tokens_per_second: float | None = None
    price: float | None = None
    measure: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage's work and time.

    Attributes:
        work: What it computes.
        hours: Of one device; None where the model's size is not known.
        basis: Where the hours are from, in words.
        money: None without a price.
    """

    work: Work
    hours: Interval | None
    basis: str
    money: Interval | None


@dataclass(frozen=True)
class Estimate:
    """What a run would do and cost.

    Attributes:
        settings: The run.
        corpus: What it works on.
        models: Section -> model.
        stages: In the order in which they run.
        device: What the hours are of.
        notes: What a reader should know.
    """

    settings: Settings
    corpus: Corpus
    models: dict[str, PlannedModel]
    stages: list[Stage]
    device: str
    notes: list[str] = field(default_factory=list)

    @property
    def hours(self) -> Interval:
        """Of all stages whose hours are known."""
        return total(stage.hours for stage in self.stages if stage.hours is not None)

    @property
    def money(self) -> Interval | None:
        """Of all stages; None without a price."""
        found = [stage.money for stage in self.stages if stage.money is not None]
        return total(found) if found else None


def make_estimate(settings: Settings, speed: Speed, sample: int = 200, seed: int = 0) -> Estimate:
    """Estimate a run.

    Args:
        settings: The run.
        speed: What is known of speeds.
        sample: Queries whose tokens are counted.
        seed: Of the sample.

    Raises:
        ConfigurationError: An unknown GPU, or something to measure without data.
        DataError: Files of the corpus are damaged.
    """
    corpus = read_corpus(settings, max(sample, speed.measure), seed)
    models = Models()
    work = [stage_work(name, settings, corpus, models) for name in settings.stages]
    device = _device(speed, settings, models)
    measured = _measure(settings, corpus, speed, models) if speed.measure else {}
    stages = [_timed(one, device, speed, measured.get(one.stage)) for one in work]
    notes = [note for model in models.found.values() for note in model.notes]
    if unreadable := sum(model.unreadable for model in models.found.values()):
        notes.append(f"{unreadable:,} pictures of the sample cannot be opened; they count no tokens")
    return Estimate(settings, corpus, models.by_section, stages, f"{device.title} ({device.source})", notes)


class Models:
    """Plans each model once, however many sections name it with the same settings."""

    def __init__(self) -> None:
        self.found: dict[tuple[Any, ...], PlannedModel] = {}
        self.by_section: dict[str, PlannedModel] = {}

    def __call__(self, section: str, parameters: Any) -> PlannedModel:
        """Return the model of a section."""
        names = ("model", "revision", "dtype", "min_pixels", "max_pixels", "max_tokens")
        key = tuple(getattr(parameters, name) for name in names)
        if key not in self.found:
            self.found[key] = plan_model(section, parameters)
        self.by_section[section] = self.found[key]
        return self.found[key]


def _device(speed: Speed, settings: Settings, models: Models) -> Device:
    """Choose the device that the hours are of: what is stated, what is here, else by the models' sizes."""
    if speed.flops is not None:
        return Device("stated", f"device of {speed.flops:.3g} operations/s at best", speed.flops, "stated")
    if speed.gpu is not None:
        return cpu() if speed.gpu == "cpu" else find_gpu(speed.gpu)
    if (here := gpu_here(_gpu_title())) is not None:
        return here
    sizes = [model.cost.parameters for model in models.found.values() if model.cost is not None]
    small = max(sizes, default=0) < _SMALL
    return cpu() if small or speed.measure else find_gpu("a800")


def _gpu_title() -> str:
    from unime_kedro.learning.hardware import gpu_name

    return gpu_name() or ""


def _measure(settings: Settings, corpus: Corpus, speed: Speed, models: Models) -> Mapping[str, Measured]:
    from unime_kedro.planning.measuring import measure_stages

    if not corpus.groups:
        raise ConfigurationError(f"--measure={speed.measure}: there are no data to measure with. {corpus.notes[-1]}")
    return measure_stages(settings, corpus, speed.measure, models)


def _timed(work: Work, device: Device, speed: Speed, measured: Measured | None) -> Stage:
    seconds, basis = _seconds(work, device, speed, measured)
    hours = None if seconds is None else seconds * (1 / 3600)
    money = None if hours is None or speed.price is None else hours * speed.price
    return Stage(work, hours, basis, money)


def _seconds(work: Work, device: Device, speed: Speed, measured: Measured | None) -> tuple[Interval | None, str]:
    if measured is not None:
        return measured.seconds(work), measured.basis
    if work.units == "pairs" and speed.pairs_per_second:
        return work.amount.over(_about(speed.pairs_per_second)), f"stated, {speed.pairs_per_second:,.0f} pairs/s"
    tokens = work.figures.get("run_tokens", work.figures.get("tokens"))
    if speed.tokens_per_second and tokens is not None:
        return tokens.over(_about(speed.tokens_per_second)), f"stated, {speed.tokens_per_second:,.0f} tokens/s"
    if work.operations is None:
        return None, "size of the model not known"
    share = UTILISATION[work.stage]
    basis = f"assumed, {share.low:.0%} to {share.high:.0%} of the device's best"
    return work.operations.over(share * device.peak), basis


def _about(value: float) -> Interval:
    return Interval(value * (1 - _STATED), value, value * (1 + _STATED))


def as_document(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate as plain values, for machines.

    Every number that is not known exactly is ``{low, middle, high}``.
    """
    corpus, settings = estimate.corpus, estimate.settings
    rows = None if corpus.checked is None else corpus.checked.metrics
    return {
        "environment": settings.env,
        "pipelines": list(settings.pipelines),
        "corpus": {
            "source": corpus.source,
            "queries": corpus.queries,
            "items": corpus.items.as_dict(),
            "pictures": corpus.pictures.as_dict(),
            "checked_rows": rows and int(rows["pairs_read"]),
            "bad_rows": rows and int(rows["rejected"]),
            "notes": corpus.notes,
        },
        "models": {
            section: {
                "model": model.name,
                "parameters": model.cost and model.cost.parameters,
                "read": model.adapter is not None,
            }
            for section, model in estimate.models.items()
        },
        "device": estimate.device,
        "stages": {stage.work.stage: _stage_document(stage) for stage in estimate.stages},
        "hours": estimate.hours.as_dict(),
        "money": estimate.money and estimate.money.as_dict(),
        "notes": estimate.notes,
    }


def _stage_document(stage: Stage) -> dict[str, Any]:
    work = stage.work
    return {
        "model": work.model,
        work.units: work.amount.as_dict(),
        **{name: value.as_dict() for name, value in work.figures.items()},
        "operations": work.operations and work.operations.as_dict(),
        "hours": stage.hours and stage.hours.as_dict(),
        "money": stage.money and stage.money.as_dict(),
        "basis": stage.basis,
        "notes": work.notes,
    }
