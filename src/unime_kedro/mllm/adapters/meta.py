"""The meta device: a model's shapes without its numbers. Counting tokens and operations needs no weights."""

from __future__ import annotations

from typing import Any

#: as ``ModelSpec.device``: configuration, tokenizer and image processor are read, weights are not
META = "meta"


def build_without_weights(config: Any, dtype: Any) -> Any:
    """Build the transformers model that a configuration describes, without reading or making a single weight.

    Args:
        config: Of the model.
        dtype: Of the weights that it would have.
    """
    from unime_kedro.mllm.sizes import meta_model

    return meta_model(config.to_dict()).to(dtype)
