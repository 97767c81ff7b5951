"""Random tiny models of every backbone family, saved like published ones, and transformers' own processors for them.

Facts of the formats (names of special tokens, what a chat template puts around a turn, what the processor replaces)
are those of the hub models Qwen/Qwen3-VL-8B-Instruct, llava-hf/llava-onevision-qwen2-7b-ov-hf and
OpenGVLab/InternVL3-8B-hf; sizes are made up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"]

#: what transformers' processor wants for a picture
IMAGE_TOKEN = dict.fromkeys(FAMILIES[:3], "<|vision_start|><|image_pad|><|vision_end|>") | {
    "llava_onevision": "<image>",
    "internvl": "<IMG_CONTEXT>",
}

# Reads a list of parts only: words given as a string would be dropped, as by the published template.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}\n{{ part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _qwen3(tokenizer: Any) -> tuple[Any, Any]:
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    ids |= {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config=_text(tokenizer, head_dim=16, rope_parameters=rope),
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return config, Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, min_pixels=1024, max_pixels=16384, **half)


def _llava(tokenizer: Any) -> tuple[Any, Any]:
    import transformers
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    pinpoints = [[56 * rows, 56 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = transformers.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_3",  # of at most nine tiles: some maps are made smaller
        tie_word_embeddings=False,
    )
    return config, LlavaOnevisionImageProcessorPil(
        size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def _internvl(tokenizer: Any) -> tuple[Any, Any]:
    import transformers
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    names |= {"video_token": "<video>"}
    tokenizer.add_special_tokens({"additional_special_tokens": [*names.values(), "<quad>", "</quad>"]})
    tokenizer._set_model_specific_special_tokens(names)
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "attention_bias": True,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    # crop_to_patches: false, as in the published folder; the processor overrules it
    return config, GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=False, max_patches=6)


def save_backbone(folder: Path, family: str) -> Path:
    """Save a random model of Qwen3-VL, LLaVA-OneVision or InternVL; weights larger than usual, see conftest."""
    import torch
    import transformers

    from unime_kedro.learning.tiny.tokenizer import train_tokenizer

    tokenizer = train_tokenizer()
    makers = {"qwen3_vl": _qwen3, "llava_onevision": _llava, "internvl": _internvl}
    config, image_processor = makers[family](tokenizer)
    torch.manual_seed(3)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    enlarge_weights(model)
    model.save_pretrained(folder)
    if family == "internvl":
        tokenizer.chat_template = _INTERNVL_TEMPLATE
    tokenizer.save_pretrained(folder)
    if family == "llava_onevision":  # the tokenizer's own is another one, as in the published folder
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": _LLAVA_TEMPLATE}))
        (folder / "chat_template.jinja").unlink()
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{{ 'of the language model' }}"}))
    image_processor.save_pretrained(folder)
    return folder


def enlarge_weights(model: Any) -> None:
    """Make different inputs give clearly different outputs."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_tokens" not in name:
                weight.mul_(4)


@dataclass(frozen=True)
class Backbone:
    """A saved model, our adapter of it, and transformers' own way to run it."""

    family: str
    folder: Path
    adapter: Any

    @cached_property
    def processor(self) -> Any:
        """transformers' own processor; its video processor, which needs torchvision, is left out."""
        from transformers import AutoTokenizer, ProcessorMixin
        from transformers.models.internvl.processing_internvl import InternVLProcessor
        from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
        from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
        from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
        from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

        kinds = [Qwen2VLProcessor, Qwen2_5_VLProcessor, Qwen3VLProcessor, LlavaOnevisionProcessor, InternVLProcessor]
        kind = dict(zip(FAMILIES, kinds, strict=True))[self.family]
        own: dict[str, Any] = {"llava_onevision": {"num_image_tokens": 16, "vision_aspect_ratio": "anyres_max_3"}}
        own |= {"internvl": {"image_seq_length": 4}}
        without_video = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda self, name, a: type(a)})
        image_processor = type(self.adapter.image_processor).from_pretrained(self.folder)
        more = own.get(self.family, {})
        if self.family == "llava_onevision":
            more["vision_feature_select_strategy"] = "full"
        template = ProcessorMixin.get_processor_dict(str(self.folder))[0]["chat_template"]
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        return without_video(image_processor=image_processor, tokenizer=tokenizer, chat_template=template, **more)

    def inputs(self, texts: list[str], images: list[Path]) -> dict[str, Any]:
        """Left-padded inputs of the model; ``<|image_1|>`` stands for a picture in the texts."""
        from PIL import Image

        marked = [text.replace("<|image_1|>", IMAGE_TOKEN[self.family]) for text in texts]
        pictures = [Image.open(file).convert("RGB") for file in images] or None
        out = self.processor(
            text=marked,
            images=pictures,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        return dict(out)

    def chat(self, text: str) -> str:
        """A user's turn as transformers' own processor renders it."""
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)

    def hidden(self, texts: list[str], images: list[Path]) -> Any:
        """States (n, hidden) of the last layer at the last tokens, by the model's own forward pass, with a graph."""
        self.adapter.model.model.rope_deltas = None
        return self.adapter.model.model(**self.inputs(texts, images), use_cache=False).last_hidden_state[:, -1]
