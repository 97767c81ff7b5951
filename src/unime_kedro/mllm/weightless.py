"""Models without their weights: configuration, tokenizer and image processor, enough to count what a run would do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.mllm.adapters import load_adapter, local_or_hub
from unime_kedro.mllm.adapters.lora import base_of, is_lora
from unime_kedro.mllm.adapters.meta import META
from unime_kedro.mllm.content import ModelSpec
from unime_kedro.mllm.cost import ModelCost

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter


def load_without_weights(spec: ModelSpec) -> BackboneAdapter:
    """Load a model as :func:`load_adapter` does, but with its weights on torch's meta device: shapes without numbers.

    Of a LoRA adapter in a folder it is the base model; the adapter's own weights are a percent or so.

    Args:
        spec: Which model; its device does not matter.

    Raises:
        ModelError: If configuration, tokenizer or image processor cannot be read here, such as those of a hub model
            that was never downloaded, on a machine without network.
    """
    source = local_or_hub(spec.model)
    if isinstance(source, Path) and is_lora(source):
        base, revision = base_of(source)
        return load_without_weights(replace(spec, model=base, revision=revision))
    return load_adapter(replace(spec, device=META))


def cost_of(adapter: BackboneAdapter) -> ModelCost:
    """Compute what a forward pass costs from the shapes of a model's weights.

    Args:
        adapter: With or without weights.
    """
    model = adapter.model
    language = model.model.language_model
    text, vision = model.config.get_text_config(), model.config.vision_config
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers, width = _vision_shape(vision)
    return ModelCost(
        parameters=_count(model),
        language=_count(language) - _count(language.get_input_embeddings()),
        vision=_count(model.model) - _count(language),
        layers=text.num_hidden_layers,
        width=text.num_attention_heads * head_width,
        hidden=text.hidden_size,
        vision_layers=layers,
        vision_width=width,
        patches_per_token=_patches_per_token(adapter),
    )


def _patches_per_token(adapter: BackboneAdapter) -> int:
    """Return how many patches the vision tower reads for one visual token; families name it differently."""
    ratio = getattr(adapter.model.config, "downsample_ratio", None)
    return int(getattr(adapter, "merge", 1)) ** 2 if ratio is None else round(1 / ratio**2)


def _count(module: Any) -> int:
    """Weights of a module, tied ones once."""
    return sum(weight.numel() for weight in module.parameters())


def _vision_shape(config: Any) -> tuple[int, int]:
    """Return the layers that see a whole picture, and their width; families name them differently."""
    depth = next(getattr(config, name) for name in ("depth", "num_hidden_layers") if hasattr(config, name))
    # Qwen2-VL calls its own width embed_dim and that of the language model hidden_size
    width = getattr(config, "embed_dim", None) or config.hidden_size
    full = getattr(config, "fullatt_block_indexes", None)
    return (depth if full is None else len(full)), width
