"""How large a model is, from its ``config.json`` alone: built on torch's meta device, where weights take no memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unime_kedro.errors import ModelError

#: bytes of a number of the key-value cache in bfloat16 or float16
_HALF = 2


@dataclass(frozen=True)
class ModelSize:
    """Parameters and dimensions of a multimodal LLM.

    Attributes:
        parameters: Number of all parameters; tied weights count once.
        vision: Of these, in the vision tower and in what turns patches into visual tokens.
        language: The rest: word embeddings, decoder and output head.
        layers: Decoder layers.
        hidden: Width of the decoder, which is the length of an embedding.
        kv_bytes_per_token: Bytes that one token takes in the key-value cache in bfloat16, all layers together.
    """

    parameters: int
    vision: int
    language: int
    layers: int
    hidden: int
    kv_bytes_per_token: int


def model_size(source: str | Path | Mapping[str, Any]) -> ModelSize:
    """Return the size of a model; no weights are read or made.

    Args:
        source: A folder with ``config.json``, that file, or its content.

    Raises:
        ModelError: If the configuration cannot be read, or is not one of a multimodal LLM.
    """
    model = meta_model(source)
    text = model.config.get_text_config()
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    total = sum(p.numel() for p in model.parameters())
    outside = [m for name, m in model.model.named_children() if name != "language_model"]
    vision = sum(p.numel() for part in outside for p in part.parameters())
    vision += sum(p.numel() for _, p in model.model.named_parameters(recurse=False))
    return ModelSize(
        parameters=total,
        vision=vision,
        language=total - vision,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        kv_bytes_per_token=2 * text.num_hidden_layers * key_value_heads * head_width * _HALF,
    )


def meta_model(source: str | Path | Mapping[str, Any]) -> Any:
    """Build a model on the meta device: all shapes, no numbers.

    Args:
        source: See :func:`model_size`.

    Returns:
        A transformers model with an output head.

    Raises:
        ModelError: See :func:`model_size`.
    """
    import torch
    import transformers

    values, named = _values(source)
    kind = values.pop("model_type", None)
    try:
        config = transformers.AutoConfig.for_model(kind, **values)
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(config)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{named} with model_type {kind!r} is not the configuration of a multimodal LLM that transformers "
            f"{transformers.__version__} can build: {reason}"
        ) from error
    if not hasattr(model.model, "language_model"):
        raise ModelError(f"{named}: a {type(model).__name__} has no language model beside its vision tower.")
    return model


def _values(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the content of a configuration, and how to name it in a message."""
    if isinstance(source, Mapping):
        return json.loads(json.dumps(dict(source))), "a configuration"
    file = Path(source)
    file = file / "config.json" if file.is_dir() else file
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the configuration {file}: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds a {type(found).__name__}; a model's configuration is an object.")
    return found, str(file)
