"""A small Qwen2 tokenizer in which every word for an object is one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unime_kedro.minimmeb import easyvqa, texts
from unime_kedro.minimmeb.classes import object_classes
from unime_kedro.mllm.prompts import judge_prompt

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

#: Qwen2-VL's special tokens, in its order
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

# Qwen2's own pre-tokenizer pattern; the tokenizer class sets it, training must split the same way.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Qwen2-VL's template without its default system turn, which would only make tiny prompts longer.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def known_words() -> list[str]:
    """Return every word for an object or an answer that the tiny models know; each is one token behind a space."""
    names = [word for c in object_classes() for word in c.words]
    return list(dict.fromkeys([*names, *easyvqa.ANSWERS, "shape"]))


def _training_texts() -> list[str]:
    names = [f" {word}" for word in known_words()]
    # easy-VQA's questions, one of each wording: their words are few
    questions = {q.text for answer in easyvqa.ANSWERS for q in easyvqa.questions("pretrain")[answer]}
    fixed = [
        *(f" {text}" for text in sorted(questions)),
        judge_prompt("", ""),
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n",
        *texts.fixed_texts(),
        "Yes No",
    ]
    return names * 50 + fixed * 200


def train_tokenizer(vocabulary: int = 1536) -> Qwen2Tokenizer:
    """Train a byte-pair vocabulary on the world's words.

    Args:
        vocabulary: Largest vocabulary, special tokens included.

    Returns:
        A ``Qwen2Tokenizer`` with Qwen2-VL's special tokens; ``" word"`` is one token for every known word.

    Raises:
        ValueError: If some name is not a single token (the vocabulary is too small).
    """
    import json

    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_training_texts(), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    split = [word for word in known_words() if len(tokenizer(f" {word}")["input_ids"]) != 1]
    if split:
        raise ValueError(f"vocabulary of {vocabulary} is too small: {split[:5]} are not single tokens")
    return tokenizer
