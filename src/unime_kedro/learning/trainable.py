"""Which parameters of a loaded model train: all of them, or low-rank adapters (LoRA, Hu et al. 2021) beside them.

An embedding is a hidden state; the output head takes no part in it. Only what is below ``adapter.model.model`` can
train. An output head of its own (weights not tied to the word embeddings) would never get a gradient, so it is frozen:
weight decay cannot move it, and no process waits for it. For a model that answers in words (``head``) full tuning
trains it, too.

Precision: full tuning trains the weights in the type that the model was loaded in. With LoRA the frozen weights keep
their type (bfloat16 on a GPU, float32 on a CPU), while the adapters are float32, because steps of 1e-4 get lost in the
eight bits of a bfloat16 number. peft converts at the border of every adapter, so nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unime_kedro.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    import torch

    from unime_kedro.mllm.adapters.base import BackboneAdapter

Tuning = Literal["full", "lora"]


@dataclass(frozen=True)
class TrainableReport:
    """What trains.

    Attributes:
        tuning: ``full`` or ``lora``.
        trainable: Number of parameters that train.
        total: Number of all parameters, LoRA's included; tied weights count once.
        lora_modules: Names of the linear layers that have an adapter, as in ``adapter.model.named_modules()``.
        peft: The ``PeftModel`` around ``adapter.model``, which saves or merges the adapters; None without LoRA.
    """

    tuning: Tuning
    trainable: int
    total: int
    lora_modules: tuple[str, ...] = ()
    peft: Any = field(default=None, repr=False, compare=False)

    @property
    def share(self) -> float:
        """Trainable share of all parameters, in [0, 1]."""
        return self.trainable / self.total


def make_trainable(
    adapter: BackboneAdapter,
    *,
    tuning: Tuning,
    rank: int = 16,
    alpha: float = 64,
    dropout: float = 0.1,
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    freeze_vision: bool = False,
    seed: int = 0,
    head: bool = False,
    section: str = "train",
) -> TrainableReport:
    """Set ``requires_grad`` of every parameter of a model, and put LoRA adapters in when asked for.

    The linear layers are replaced inside ``adapter.model``: all methods of ``adapter`` run through them from then on.
    Evaluation or training mode is left as it is.

    Args:
        adapter: The model, as loaded.
        tuning: ``full`` trains the weights, ``lora`` freezes them all and trains adapters.
        rank: Rank of the adapters.
        alpha: Their output is multiplied by ``alpha / rank``.
        dropout: Share of an adapter's inputs that is dropped in training mode.
        targets: Linear layers that get an adapter, by the end of their name (``q_proj``, ``self_attn.q_proj``).
        freeze_vision: Nothing of the vision tower trains: not its blocks, not the merger or projector that turns
            patches into visual tokens, and no adapter is put there.
        seed: Of the adapters' first matrices; the second ones start at zero, so that the model starts unchanged.
            Random numbers outside are not touched.
        head: Full tuning trains the output head, too.
        section: Top-level key of the parameters, for messages.

    Returns:
        Counts and names.

    Raises:
        ConfigurationError: If a target matches no layer.
        ModelError: If the model has LoRA adapters already, or peft is not installed.
    """
    if hasattr(adapter.model, "peft_config"):
        raise ModelError("this model has LoRA adapters already; load it anew before choosing what trains.")
    frozen = _vision_names(adapter) if freeze_vision else ()
    if tuning == "full":
        # what takes no part would be moved by weight decay alone
        _train_all(adapter.model, frozen + tuple(f"model.{name}" for name in adapter.idle_parts))
        if head:
            adapter.model.get_output_embeddings().requires_grad_(True)
        return _report(adapter.model, tuning)
    layers = _linear_layers(adapter.model, without=frozen)
    chosen = _match(targets, layers, section, frozen_vision=bool(frozen))
    peft_model = _add_lora(adapter, chosen, rank=rank, alpha=alpha, dropout=dropout, seed=seed)
    return _report(adapter.model, tuning, chosen, peft_model)


def _train_all(model: Any, frozen: tuple[str, ...]) -> None:
    """Train everything that an embedding depends on; what is below ``frozen`` is left out."""
    model.requires_grad_(False)
    model.model.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if _below(name, frozen):
            parameter.requires_grad_(False)


def _vision_names(adapter: BackboneAdapter) -> tuple[str, ...]:
    """Names of what turns pictures into visual tokens, of those that this model has."""
    found = dict.fromkeys(name.split(".", 1)[0] for name, _ in adapter.model.model.named_parameters())
    return tuple(f"model.{name}" for name in found if name in adapter.vision_parts)


def _below(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _linear_layers(model: Any, *, without: tuple[str, ...]) -> list[str]:
    """Names of the linear layers that an embedding depends on, those below ``without`` left out."""
    import torch

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("model.") and not _below(name, without)
    ]


def _match(targets: Sequence[str], layers: list[str], section: str, *, frozen_vision: bool) -> tuple[str, ...]:
    """Return the layers that targets mean; every target must mean at least one."""
    missing = [target for target in targets if not any(_means(target, layer) for layer in layers)]
    if missing or not targets:
        what = ", ".join(f"'{target}'" for target in missing) or "an empty list"
        where = f"outside the vision tower ({section}.freeze_vision is true)" if frozen_vision else "of this model"
        raise ConfigurationError(
            f"{section}.lora.targets: {what} matches no linear layer {where} that an embedding depends on. "
            f"There are: {', '.join(_endings(layers))}. A target is the end of a layer's name."
        )
    return tuple(layer for layer in layers if any(_means(target, layer) for target in targets))


def _means(target: str, layer: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def _endings(layers: Iterable[str]) -> list[str]:
    """Last parts of the names, each once, in order; a number alone says nothing and takes the part before along."""
    parts = (layer.split(".") for layer in layers)
    return list(dict.fromkeys(".".join(p[-2:]) if p[-1].isdigit() else p[-1] for p in parts))


def _add_lora(
    adapter: BackboneAdapter, names: tuple[str, ...], *, rank: int, alpha: float, dropout: float, seed: int
) -> Any:
    """Put adapters on the named layers; returns the ``PeftModel``."""
    import warnings

    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModelError("tuning: lora needs peft, which is not installed; pip install peft.") from error
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing. is deprecated")  # peft asks transformers
    # Full names, not the targets: an ending may also be that of a layer that must not train. peft shortens them again.
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=list(names),
        bias="none",
    )
    with _seeded(seed, adapter.device):
        model = peft.get_peft_model(adapter.model, config)
    found = tuple(name for name, module in adapter.model.named_modules() if isinstance(module, peft.tuners.lora.Linear))
    if found != names:
        raise ModelError(f"peft put adapters on {', '.join(found)}; expected {', '.join(names)}.")
    # new layers start in training mode, dropout included, whatever mode the model is in
    adapter.model.train(adapter.model.training)
    return model


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block with random numbers of its own."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _report(model: Any, tuning: Tuning, lora: tuple[str, ...] = (), peft_model: Any = None) -> TrainableReport:
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return TrainableReport(tuning, trainable, sum(p.numel() for p in parameters), lora, peft_model)
