"""The shape of the tiny models: Qwen2-VL's own classes with small numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.minimmeb.drawing import SCENE, TILE

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

#: one merged visual token covers one cell of a scene: 2 x 2 patches of 28 pixels
PATCH = TILE // 2
HEAD = 64


def image_processor() -> Qwen2VLImageProcessorPil:
    """Return Qwen2-VL's image processor with 28-pixel patches: a scene is 4 visual tokens, a crop is one."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, min_pixels=TILE * TILE, max_pixels=SCENE * SCENE)


def new_model(
    tokenizer: Qwen2Tokenizer, *, hidden: int, layers: int, vision_layers: int = 2, seed: int
) -> Qwen2VLForConditionalGeneration:
    """Build an untrained tiny Qwen2-VL.

    Nearly all rotary pairs turn with the width axis (``mrope_section`` 2/3/27) at theta 1e4, so that half of them turn
    slowly: matching content at any distance stays possible. With a small theta it is not, and nothing is learned.

    Args:
        tokenizer: The tokenizer whose ids the model uses.
        hidden: Width of the language model and of the vision tower; a multiple of 64.
        layers: Layers of the language model.
        vision_layers: Layers of the vision tower.
        seed: Seed of the initialisation.

    Returns:
        The model, in float32.
    """
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // HEAD,
            "num_key_value_heads": hidden // HEAD,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, HEAD // 2 - 5]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": vision_layers,
            "embed_dim": hidden,
            "hidden_size": hidden,
            "num_heads": hidden // 32,
            "mlp_ratio": 2,
            "patch_size": PATCH,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
