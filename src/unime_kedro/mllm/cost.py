"""What a model costs: parameters and floating-point operations, from the shape that its configuration gives.

Counted are the matrix products (two operations per weight and token) and attention (four per layer, head width and
pair of tokens); all else is below a few percent. The output head is left out: Yes/No judging reads two of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelCost:
    """What one forward pass of a multimodal LLM costs.

    Attributes:
        parameters: All weights, tied ones once.
        language: Weights of the language model's layers, without embeddings and output head.
        vision: Weights of the vision tower and of what leads from it into the language model.
        layers: Of the language model.
        width: Heads times head width of a layer of the language model.
        hidden: Length of its hidden states.
        vision_layers: Layers of the vision tower that see all patches of a picture.
        vision_width: Heads times head width of a layer of the vision tower.
        patches_per_token: Patches that one visual token stands for.
    """

    parameters: int
    language: int
    vision: int
    layers: int
    width: int
    hidden: int
    vision_layers: int
    vision_width: int
    patches_per_token: int

    def words(self, tokens: float, before: float = 0.0) -> float:
        """Operations of running ``tokens`` through the language model behind ``before`` cached ones.

        Visual tokens count as any other here; the vision tower comes on top (:meth:`picture`).
        """
        pairs = tokens * before + tokens * (tokens + 1) / 2
        return 2 * self.language * tokens + 4 * self.layers * self.width * pairs

    def picture(self, visual_tokens: float) -> float:
        """Operations of one picture in the vision tower.

        Args:
            visual_tokens: Tokens that it becomes in the language model.
        """
        patches = visual_tokens * self.patches_per_token
        return 2 * self.vision * patches + 4 * self.vision_layers * self.vision_width * patches**2


def cost_of_shape(shape: Mapping[str, Any]) -> ModelCost:
    """Compute the cost of a model from the facts of its configuration.

    Biases and norms are left out, less than a thousandth.

    Args:
        shape: A row of :data:`KNOWN`.
    """
    hidden, inner, layers = shape["hidden"], shape["intermediate"], shape["layers"]
    head = shape.get("head_width", hidden // shape["heads"])
    width, key_width = shape["heads"] * head, shape["key_value_heads"] * head
    language = layers * hidden * (2 * width + 2 * key_width + 3 * inner)
    tower, matrices = shape["vision_hidden"], 3 if shape["vision_gated"] else 2
    per_layer = 4 * tower**2 + matrices * tower * shape["vision_intermediate"]
    merged = tower * shape["patches_per_token"] if shape["projector_reads_merged"] else tower
    projector = merged * shape["projector_hidden"] + shape["projector_hidden"] * hidden
    patch = 3 * shape["frames"] * shape["patch"] ** 2 * tower
    vision = shape["vision_layers"] * per_layer + projector + patch
    embeddings = shape["vocabulary"] * hidden * (1 if shape["tied"] else 2)
    return ModelCost(
        parameters=language + vision + embeddings,
        language=language,
        vision=vision,
        layers=layers,
        width=width,
        hidden=hidden,
        vision_layers=shape.get("vision_full_layers", shape["vision_layers"]),
        vision_width=tower,
        patches_per_token=shape["patches_per_token"],
    )


_QWEN2_7B = {
    "layers": 28,
    "hidden": 3584,
    "intermediate": 18944,
    "heads": 28,
    "key_value_heads": 4,
    "vocabulary": 152064,
    "tied": False,
}
_QWEN2_VISION = {
    "vision_layers": 32,
    "vision_hidden": 1280,
    "vision_intermediate": 5120,
    "vision_gated": False,
    "patch": 14,
    "frames": 2,
    "patches_per_token": 4,
    "projector_hidden": 5120,
    "projector_reads_merged": True,
}
_SIGLIP = {  # so400m, 384 px; the last of its 27 layers is not used
    "vision_layers": 26,
    "vision_hidden": 1152,
    "vision_intermediate": 4304,
    "vision_gated": False,
    "patch": 14,
    "frames": 1,
    "patches_per_token": 1,
    "projector_hidden": 3584,
    "projector_reads_merged": False,
}
_INTERNVIT = {  # 300M, 448 px
    "vision_layers": 24,
    "vision_hidden": 1024,
    "vision_intermediate": 4096,
    "vision_gated": False,
    "patch": 14,
    "frames": 1,
    "patches_per_token": 4,
    "projector_reads_merged": True,
}
_QWEN2_VL_7B = {**_QWEN2_7B, **_QWEN2_VISION}

#: hub id -> facts of its published config.json, for a machine that cannot read it
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-VL-2B-Instruct": {
        **_QWEN2_VISION,
        "layers": 28,
        "hidden": 1536,
        "intermediate": 8960,
        "heads": 12,
        "key_value_heads": 2,
        "vocabulary": 151936,
        "tied": True,
    },
    "Qwen/Qwen2-VL-7B-Instruct": _QWEN2_VL_7B,
    "TIGER-Lab/VLM2Vec-Qwen2VL-7B": _QWEN2_VL_7B,
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        **_QWEN2_VL_7B,
        # the others of its 32 layers see windows of 112 px only
        "vision_intermediate": 3420,
        "vision_gated": True,
        "vision_full_layers": 4,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {**_QWEN2_7B, **_SIGLIP, "vocabulary": 152000},
    "OpenGVLab/InternVL3-8B-hf": {**_QWEN2_7B, **_INTERNVIT, "vocabulary": 151674, "projector_hidden": 3584},
    "OpenGVLab/InternVL3-14B-hf": {
        **_INTERNVIT,
        "layers": 48,
        "hidden": 5120,
        "intermediate": 13824,
        "heads": 40,
        "key_value_heads": 8,
        "vocabulary": 151674,
        "tied": False,
        "projector_hidden": 5120,
    },
}
