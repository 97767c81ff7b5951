"""The meta device: a model's shapes without its numbers. Counting tokens and operations needs no weights."""

from __future__ import annotations

from typing import Any

#: as ``ModelSpec.device``: configuration, tokenizer and image processor are read, weights are not
META = "meta"


def build_without_weights(config: Any, dtype: Any) -> Any:
    """Build the transformers model that a configuration describes, without reading or making a single weight.

    Args:
        config: Of the model; its first architecture counts.
        dtype: Of the weights that it would have.
    """
    import torch
    import transformers

    with torch.device(META):
        return getattr(transformers, config.architectures[0])._from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
