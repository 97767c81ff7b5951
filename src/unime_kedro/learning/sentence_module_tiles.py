# Copyright the unime-kedro authors. Licensed under the Apache License, Version 2.0.
"""Embed with sentence-transformers by a LLaVA-OneVision or an InternVL; see unime_embedding.py, which lies beside it.

A copy of this file, under the name ``unime_embedding_tiles.py``, lies in every model folder of these families that
unime-kedro writes. Used like the other, needs the same packages, and repeats in short what unime_kedro.mllm does.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from sentence_transformers.base.modules import InputModule

from unime_kedro.learning.sentence_module import CONFIG, PLACEHOLDER, UnimeEmbedding, _load_weights, with_placeholder

#: model_type -> what stands in a prompt for a picture
IMAGE_BLOCKS = {"llava_onevision": "<image>", "internvl": "<img><IMG_CONTEXT></img>"}


class UnimeTileEmbedding(UnimeEmbedding):
    """Last hidden state of the last token of a LLaVA-OneVision or InternVL, L2-normalised.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer, with the chat template.
        image_processor: Its image processor.
        prompt: ``plain`` or ``chat`` (words and picture as one user turn of the chat template).
        max_tokens: Longest input; longer ones lose words at the end.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, prompt: str, max_tokens: int) -> None:
        InputModule.__init__(self)
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.prompt, self.max_seq_length = prompt, max_tokens
        self.image_id = int(model.config.image_token_id)
        self.llava = model.config.model_type == "llava_onevision"
        self.block = IMAGE_BLOCKS[model.config.model_type]
        if self.llava:  # the model puts the tiles together again by its own list
            model.config.image_grid_pinpoints = [list(size) for size in image_processor.image_grid_pinpoints]
        tokens = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._special = re.compile("|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)))

    def _picture(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Cut into tiles and normalise; pixels (tiles, 3, side, side), and tiles, height and width."""
        options: dict[str, Any] = {} if self.llava else {"crop_to_patches": True}
        out = self.image_processor(images=[image], return_tensors="np", **options)
        pixels = np.asarray(out["pixel_values"], np.float32)
        pixels = pixels[0] if pixels.ndim == 5 else pixels
        return pixels, np.array([len(pixels), image.height, image.width], np.int64)

    def _n_visual(self, grid: np.ndarray) -> int:
        """Count a picture's visual tokens."""
        config, vision = self.model.config, self.model.config.vision_config
        if not self.llava:
            rows, columns = (s // p for s, p in zip(vision.image_size, vision.patch_size, strict=True))
            return int(grid[0]) * int(rows * config.downsample_ratio) * int(columns * config.downsample_ratio)
        side, height, width = vision.image_size // vision.patch_size, int(grid[1]), int(grid[2])
        best = transformers.image_processing_utils.select_best_resolution((height, width), config.image_grid_pinpoints)
        rows, columns = (side * (length // vision.image_size) for length in best)
        if width / height > columns / rows:  # cut off what only padding shows
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        if (ratio := math.sqrt(rows * columns / (most * side**2))) > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return side**2 + rows * (columns + 1)

    def _tokens(self, text: str, picture: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids (length,), visual tokens expanded, and positions (1, length)."""
        n_visual = 0 if picture is None else self._n_visual(picture[1])
        text = self._fit(self._clean(text, picture is not None), n_visual)
        if self.prompt == "chat":
            text = self._chat(text)
        ids = self._ids(text.replace(PLACEHOLDER, self.block))
        if picture is not None:
            first = int(np.argmax(ids == self.image_id))
            ids = np.concatenate([ids[:first], np.full(n_visual, self.image_id), ids[first + 1 :]])
        return ids, np.arange(len(ids))[None]

    def _clean(self, text: str, has_image: bool) -> str:
        """Put the placeholder in order, and take control tokens out of the words."""
        while (cleaned := self._special.sub("", with_placeholder(text, has_image))) != text:
            text = cleaned
        return text

    def _chat(self, text: str) -> str:
        mark = "\u241fwords\u241f"
        for content in (mark, [{"type": "text", "text": mark}]):  # some templates read words, some only parts
            turn = [{"role": "user", "content": content}]
            found = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            if found.count(mark) == 1:
                break
        return found.replace(mark, text)

    def forward(self, features: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Add ``sentence_embedding`` (n, dimension), float32, and ``token_embeddings`` (n, length, dimension)."""
        mask, pictures = features["attention_mask"], {}
        if "pixel_values" in features:
            pictures["pixel_values"] = features["pixel_values"]
            if self.llava:
                pictures["image_sizes"] = features["image_grid_thw"][:, 1:]
        hidden = self.model.model(
            input_ids=features["input_ids"],
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=features["position_ids"][:, 0],
            use_cache=False,
            **pictures,
        ).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        embedding = torch.nn.functional.normalize(last.float(), dim=-1)
        return {**features, "token_embeddings": hidden, "sentence_embedding": embedding}

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> UnimeTileEmbedding:
        """Load from a folder or the hub; see :meth:`UnimeEmbedding.load`."""
        hub = {"token": token, "cache_dir": cache_folder, "local_files_only": local_files_only}
        found = cls.load_dir_path(
            model_name_or_path, subfolder, token, cache_folder, revision, local_files_only=local_files_only
        )
        if found is None:
            raise ValueError(f"there is no model {model_name_or_path}")
        settings = json.loads(Path(found, CONFIG).read_text(encoding="utf-8"))
        model = _load_weights(Path(found), hub, model_kwargs or {})
        return cls(
            model,
            transformers.AutoTokenizer.from_pretrained(found),
            _image_processor(model.config.model_type).from_pretrained(found),
            settings["prompt"],
            settings["max_tokens"],
        )


def _image_processor(model_type: str) -> Any:
    """Return the image processor's class: the one of two that needs no torchvision."""
    if model_type == "internvl":
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        return GotOcr2ImageProcessorPil
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    return LlavaOnevisionImageProcessorPil
