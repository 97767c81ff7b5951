"""What all families have in common in transformers 5: a vision part and a language model below ``model.model``.

The processor is put together here from tokenizer and PIL image processor: transformers' own ones need torchvision for
videos, which nothing of this project does.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from unime_kedro.errors import ModelError
from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece, ProcessedImage
from unime_kedro.mllm.adapters.meta import META, build_without_weights
from unime_kedro.mllm.fingerprint import model_fingerprint
from unime_kedro.mllm.prompts import IMAGE_PLACEHOLDER, without_control_tokens

if TYPE_CHECKING:
    import torch

    from unime_kedro.mllm.content import ModelSpec

#: stands for a user's words while the chat template is applied
_MARK = "\u241fwords\u241f"


def precision(spec: ModelSpec) -> tuple[str, Any]:
    """Return device and dtype that ``spec`` means on this machine.

    Raises:
        ModelError: If there is no such device.
    """
    import torch

    cuda = torch.cuda.is_available()
    if spec.device == META:  # counted for the machine that it is asked on
        return META, (torch.bfloat16 if cuda else torch.float32) if spec.dtype == "auto" else getattr(torch, spec.dtype)
    if spec.device == "cuda" and not cuda:
        raise ModelError("device 'cuda' was asked for, but torch finds no GPU; use device: auto or cpu.")
    device = ("cuda" if cuda else "cpu") if spec.device == "auto" else spec.device
    if spec.dtype == "auto":
        return device, torch.bfloat16 if device == "cuda" else torch.float32
    return device, getattr(torch, spec.dtype)


class TransformersAdapter(BackboneAdapter):
    """Loading, tokenizing and the language model; a family adds its pictures.

    Args:
        model: The transformers model.
        tokenizer: Its tokenizer, with the chat template.
        image_processor: Its image processor.
        fingerprint: See :class:`BackboneAdapter`.

    Attributes:
        image_block: What stands in a prompt for a picture, with one image token.
    """

    image_block: ClassVar[str]

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, fingerprint: str) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.fingerprint = fingerprint
        self._special: tuple[Any, re.Pattern[str] | None] | None = None
        self.image_id = int(model.config.image_token_id)
        self._core, self._decoder = model.model, model.model.language_model
        self.use_image_processor(image_processor)

    @classmethod
    def load(cls, source: str | Path, spec: ModelSpec, config: Any) -> Self:
        """Load from a folder or the hub; see :class:`BackboneAdapter`."""
        import transformers

        device, dtype = precision(spec)
        try:
            tokenizer = cls.read_tokenizer(source, spec.revision)
            processor = cls.read_image_processor(source, spec)
            if device == META:
                model = build_without_weights(config, dtype)
            else:
                model = getattr(transformers, cls.architectures[config.model_type]).from_pretrained(
                    source, revision=spec.revision, dtype=dtype, attn_implementation="sdpa"
                )
            fingerprint = model_fingerprint(source, spec.revision)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load model '{spec.model}': {error}") from error
        return cls(model.to(device), tokenizer, processor, fingerprint)

    @classmethod
    def read_tokenizer(cls, source: str | Path, revision: str | None) -> Any:
        """Load the tokenizer with the model's own chat template."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(source, revision=revision)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @abstractmethod
    def positions(self, ids: np.ndarray, image: ProcessedImage | None) -> tuple[np.ndarray, int]:
        """Return the positions of a piece, (axes, length) int64 from 0, and the first one behind it."""

    def encode(self, text: str, image: ProcessedImage | None) -> Piece:
        """Tokenize a piece of prompt; see :class:`BackboneAdapter`."""
        ids = np.asarray(self._tokenize(text.replace(IMAGE_PLACEHOLDER, self.image_block)), dtype=np.int64)
        n_pictures = int((ids == self.image_id).sum())
        if n_pictures != (image is not None):
            raise ModelError(f"a text asks for {n_pictures} pictures, {int(image is not None)} given: {text[:200]!r}")
        if image is not None:
            first = int(np.argmax(ids == self.image_id))
            ids = np.concatenate([ids[:first], np.full(image.n_tokens, self.image_id), ids[first + 1 :]])
        positions, span = self.positions(ids, image)
        return Piece(ids, positions, span, 0 if image is None else image.n_tokens)

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def without_special_tokens(self, text: str) -> str:
        """Take control tokens of other forms than ``<|name|>`` out; see :class:`BackboneAdapter`."""
        if self._special is None or self._special[0] is not self.tokenizer:  # a LoRA adapter may bring another
            tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
            self._special = self.tokenizer, _any_of([t for t in tokens if without_control_tokens(t)])
        pattern = self._special[1]
        while pattern is not None and (cleaned := pattern.sub("", text)) != text:
            text = cleaned
        return text

    def chat(self, text: str) -> str:
        """Put words between what the model's chat template puts around them; see :class:`BackboneAdapter`.

        Raises:
            ModelError: If there is no template, or it loses words.
        """
        if not self.tokenizer.chat_template:
            raise ModelError("the model's folder has no chat template; judge and reranker, and prompt: chat, need it.")
        # Some templates read content as words, some only as a list of parts, and then drop words without a complaint.
        for content in (_MARK, [{"type": "text", "text": _MARK}]):
            turn = [{"role": "user", "content": content}]
            found = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            if found.count(_MARK) == 1:
                return found.replace(_MARK, text)
        raise ModelError(f"the model's chat template loses the words of a user's turn: {found[:200]!r}")

    def embed_tokens(self, ids: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Embed words and put visual features in; see :class:`BackboneAdapter`."""
        embedded = self._core.get_input_embeddings()(ids.to(self.device))
        if features is None:
            return embedded
        where = (ids == self.image_id).to(self.device)[..., None].expand_as(embedded)
        return embedded.masked_scatter(where, features.to(embedded.dtype))

    def decode(
        self, inputs: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any | None
    ) -> torch.Tensor:
        """Run the language model; see :class:`BackboneAdapter`."""
        return self._run(inputs, positions, mask, cache)

    def _run(
        self, inputs: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any | None, **more: Any
    ) -> torch.Tensor:
        # Positions are always given: without them the model goes on from those of an earlier call. One axis alone is
        # (batch, length), as models without M-RoPE want it.
        return self._decoder(
            inputs_embeds=inputs,
            position_ids=(positions if len(positions) > 1 else positions[0]).to(self.device),
            attention_mask=None if mask is None else mask.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        ).last_hidden_state

    def new_cache(self) -> Any:
        """Return an empty key-value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config.get_text_config())

    def expand_cache(self, cache: Any, n: int) -> Any:
        """Show one cached row to ``n`` rows; see :class:`BackboneAdapter`."""
        from transformers import DynamicCache

        layers = [(layer.keys.expand(n, -1, -1, -1), layer.values.expand(n, -1, -1, -1)) for layer in cache.layers]
        return DynamicCache(layers, config=self.model.config.get_text_config())

    def answer_weights(self, words: tuple[str, ...]) -> torch.Tensor:
        """Return the output head's rows of single-token words; see :class:`BackboneAdapter`."""
        ids = []
        for word in words:
            tokens = self._tokenize(word)
            if len(tokens) != 1:
                raise ModelError(
                    f"'{word}' is {len(tokens)} tokens in this model's vocabulary; a Yes/No judge needs one."
                )
            ids.append(tokens[0])
        return self.model.get_output_embeddings().weight[ids].detach().float()


def _any_of(tokens: list[str]) -> re.Pattern[str] | None:
    """Compile a pattern of any of ``tokens``, the longest first; None for none."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if tokens else None
