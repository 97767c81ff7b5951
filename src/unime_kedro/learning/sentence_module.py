# Copyright the unime-kedro authors. Licensed under the Apache License, Version 2.0.
"""Embed words, pictures, or both with sentence-transformers.

A copy of this file, under the name ``unime_embedding.py``, lies in every model folder that unime-kedro writes:

    model = SentenceTransformer(folder, trust_remote_code=True)
    model.encode(["words", image, {"text": "Find a caption for <|image_1|>", "image": image}, {"image": "a.png"}])

``image`` is a PIL image, a path, or an array (rows, columns, 3) of bytes. A bare string is always words, also one that
ends in ``.png``: the path of a picture goes into a dict, or is a ``pathlib.Path``. ``<|image_1|>`` says where in the
words the picture is; without it the picture comes first.

The file needs torch, transformers, pillow and sentence-transformers 6 (peft, too, when the folder holds a LoRA
adapter), nothing else: unime-kedro need not be installed, nor torchvision, which transformers' own processor of these
models asks for. It repeats in short what unime_kedro.mllm does; a test there holds both to equal vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from sentence_transformers.base.modules import InputModule
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

CONFIG = "unime_embedding.json"
PLACEHOLDER = "<|image_1|>"
IMAGE_BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"
_CONTROL = re.compile(r"<\|[A-Za-z0-9_]+\|>")


class UnimeEmbedding(InputModule):
    """Last hidden state of the last token of a Qwen2-VL or Qwen2.5-VL, L2-normalised.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer, with the chat template.
        image_processor: Its image processor.
        prompt: ``plain`` or ``chat`` (words and picture as one user turn of the chat template).
        max_tokens: Longest input; longer ones lose words at the end.
    """

    tokenizer: Any

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, prompt: str, max_tokens: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.prompt, self.max_seq_length = prompt, max_tokens
        self.image_id = int(model.config.image_token_id)
        self.merge = int(model.config.vision_config.spatial_merge_size)

    @property
    def modalities(self) -> list[Any]:
        """What can be embedded; ``message`` is what sentence-transformers calls a batch of different kinds."""
        return ["text", "image", ("image", "text"), "message"]

    def get_embedding_dimension(self) -> int:
        """Return the length of a vector."""
        return int(self.model.config.get_text_config().hidden_size)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Turn inputs into right-padded tokens and pixels.

        Args:
            inputs: Words, pictures, dicts with ``text`` and ``image``; of different kinds if need be.
            prompt: Put in front of the words.
            **kwargs: Not used.

        Returns:
            input_ids and attention_mask (n, length), position_ids (n, 3, length); with pictures also pixel_values
            (patches, values) and image_grid_thw (pictures, 3).

        Raises:
            ValueError: If an input is something else, a picture cannot be read, or one does not fit into max_tokens.
        """
        rows, pictures = [], []
        for item in inputs:
            text, image = _text_and_image(item)
            picture = None if image is None else self._picture(image)
            rows.append(self._tokens((prompt or "") + text, picture))
            if picture is not None:
                pictures.append(picture)
        length = max(len(ids) for ids, _ in rows)
        features = {
            "input_ids": torch.zeros(len(rows), length, dtype=torch.long),
            "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
            "position_ids": torch.zeros(len(rows), 3, length, dtype=torch.long),
        }
        for i, (ids, positions) in enumerate(rows):
            features["input_ids"][i, : len(ids)] = torch.from_numpy(ids)
            features["attention_mask"][i, : len(ids)] = 1
            features["position_ids"][i, :, : len(ids)] = torch.from_numpy(positions)
        if pictures:
            features["pixel_values"] = torch.from_numpy(np.concatenate([pixels for pixels, _ in pictures]))
            features["image_grid_thw"] = torch.from_numpy(np.stack([grid for _, grid in pictures]))
        return features

    def _picture(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Resize and normalise; pixels (patches, values) and grid (3,)."""
        out = self.image_processor(images=[image], return_tensors="np")
        return np.asarray(out["pixel_values"], np.float32), np.asarray(out["image_grid_thw"])[0].astype(np.int64)

    def _tokens(self, text: str, picture: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids (length,), visual tokens expanded, and positions (3, length)."""
        grid = None if picture is None else picture[1]
        n_visual = 0 if grid is None else int(grid.prod()) // self.merge**2
        text = self._fit(with_placeholder(text, grid is not None), n_visual)
        if self.prompt == "chat":
            text = self._chat(text)
        ids = self._ids(text.replace(PLACEHOLDER, IMAGE_BLOCK))
        if grid is not None:
            first = int(np.argmax(ids == self.image_id))
            ids = np.concatenate([ids[:first], np.full(n_visual, self.image_id), ids[first + 1 :]])
        return ids, positions(ids, grid, self.image_id, self.merge)

    def _ids(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    def _chat(self, text: str) -> str:
        turn = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)

    def _fit(self, text: str, n_visual: int) -> str:
        """Cut words at the end, never the picture, so that all takes at most ``max_seq_length`` tokens."""
        limit = self.max_seq_length - (len(self._ids(self._chat(""))) if self.prompt == "chat" else 0)
        if len(text.encode()) + n_visual <= limit:  # no tokenizer makes more tokens than there are bytes
            return text
        room = limit - n_visual - 2
        if room < 1:
            raise ValueError(
                f"a picture of {n_visual} visual tokens does not fit into max_seq_length {self.max_seq_length}."
            )
        words, at = text.replace(PLACEHOLDER, ""), text.find(PLACEHOLDER)
        offsets = self.tokenizer(words, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) <= room:
            return text
        kept = words[: offsets[room - 1][1]]
        return kept if at < 0 else kept[:at] + PLACEHOLDER + kept[at:]

    def forward(self, features: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Add ``sentence_embedding`` (n, dimension), float32, and ``token_embeddings`` (n, length, dimension)."""
        mask = features["attention_mask"]
        hidden = self.model.model(
            input_ids=features["input_ids"],
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=features["position_ids"].transpose(0, 1),
            pixel_values=features.get("pixel_values"),
            image_grid_thw=features.get("image_grid_thw"),
            use_cache=False,
        ).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        embedding = torch.nn.functional.normalize(last.float(), dim=-1)
        return {**features, "token_embeddings": hidden, "sentence_embedding": embedding}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Save weights (a LoRA adapter's merged), tokenizer, image processor and settings."""
        self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)
        self.image_processor.save_pretrained(output_path)
        settings = {"prompt": self.prompt, "max_tokens": self.max_seq_length}
        Path(output_path, CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

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
    ) -> UnimeEmbedding:
        """Load from a folder or the hub.

        Args:
            model_name_or_path: Folder or hub id.
            subfolder: Below it.
            token: Of the hub.
            cache_folder: Of the hub.
            revision: Of the hub.
            local_files_only: Fetch nothing.
            init_defaults: Not used.
            model_kwargs: For ``from_pretrained``; the type of the weights is float32 unless ``dtype`` says otherwise.
            **kwargs: Not used.
        """
        hub = {"token": token, "cache_dir": cache_folder, "local_files_only": local_files_only}
        found = cls.load_dir_path(
            model_name_or_path, subfolder, token, cache_folder, revision, local_files_only=local_files_only
        )
        if found is None:
            raise ValueError(f"there is no model {model_name_or_path}")
        folder = Path(found)
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        limits = {key: settings[key] for key in ("min_pixels", "max_pixels") if settings.get(key)}
        return cls(
            _load_weights(folder, hub, model_kwargs or {}),
            transformers.AutoTokenizer.from_pretrained(folder),
            Qwen2VLImageProcessorPil.from_pretrained(folder, **limits),
            settings["prompt"],
            settings["max_tokens"],
        )


def _load_weights(folder: Path, hub: dict[str, Any], options: dict[str, Any]) -> Any:
    """Load a full model, or a LoRA adapter merged into its base model."""
    file = folder / "adapter_config.json"
    options = {"attn_implementation": "sdpa", "dtype": torch.float32, **options}
    if not file.is_file():
        return _full(folder, options)
    from peft import PeftModel

    config = json.loads(file.read_text(encoding="utf-8"))
    base = _find_base(config["base_model_name_or_path"], folder)
    if isinstance(base, Path):
        model = _load_weights(base, hub, options)
    else:
        model = _full(base, {**options, **hub, "revision": config.get("revision")})
    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def _full(source: str | Path, options: dict[str, Any]) -> Any:
    keep = {key: options[key] for key in ("token", "cache_dir", "local_files_only", "revision") if key in options}
    config = transformers.AutoConfig.from_pretrained(source, **keep)
    return getattr(transformers, config.architectures[0]).from_pretrained(source, **options)


def _find_base(base: str, folder: Path) -> str | Path:
    """Find a base model: a folder, relative to the adapter's folder or one above it, or a hub id."""
    for start in (folder.resolve(), *folder.resolve().parents, Path.cwd()):
        if (start / base / "config.json").is_file() or (start / base / "adapter_config.json").is_file():
            return start / base
    if Path(base).is_absolute() or base.count("/") != 1:
        raise ValueError(
            f"there is no base model {base}, which {folder / 'adapter_config.json'} names; change it there, or save "
            "the model merged."
        )
    return base


def _text_and_image(item: Any) -> tuple[str, Image.Image | None]:
    """Take an input apart."""
    if isinstance(item, str):
        return item, None
    if isinstance(item, (Image.Image, Path, np.ndarray)):
        return "", _rgb(item)
    if isinstance(item, dict) and item and set(item) <= {"text", "image"}:
        image = item.get("image")
        return item.get("text") or "", None if image is None else _rgb(image)
    raise ValueError(
        f"cannot embed {type(item).__name__}; expected words (str), a picture (PIL image, pathlib.Path, array of "
        "bytes), or a dict with 'text' and 'image'."
    )


def _rgb(image: Any) -> Image.Image:
    """Read a picture; transparent ones are laid on white."""
    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                opened.load()
                image = opened
        except OSError as error:
            raise ValueError(f"picture {image} cannot be read: {error}") from error
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
        raise ValueError(f"a picture is a {type(image).__name__}; expected a PIL image, a path or an array of bytes.")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image.alpha_composite(layer)
    return image.convert("RGB")


def with_placeholder(text: str, has_image: bool) -> str:
    """Give a text one placeholder if there is a picture, none otherwise; take control tokens out of the words."""
    head, found, tail = text.partition(PLACEHOLDER)
    if not has_image:
        return _words(head + tail)
    head, tail = _words(head), _words(tail)
    if found:
        return head + PLACEHOLDER + tail
    return f"{PLACEHOLDER}\n{head}" if head else PLACEHOLDER


def _words(text: str) -> str:
    while (cleaned := _CONTROL.sub("", text)) != text:
        text = cleaned
    return text


def positions(ids: np.ndarray, grid: np.ndarray | None, image_id: int, merge: int) -> np.ndarray:
    """Return multimodal rotary positions (3, length) of a sequence with at most one picture."""
    if grid is None:
        return np.tile(np.arange(len(ids)), (3, 1))
    rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
    first, n = int(np.argmax(ids == image_id)), rows * columns
    cell = np.arange(n)
    image = first + np.stack([np.zeros_like(cell), cell // columns, cell % columns])
    after = np.tile(np.arange(len(ids) - first - n) + first + max(rows, columns), (3, 1))
    return np.concatenate([np.tile(np.arange(first), (3, 1)), image, after], axis=1)
