"""The model card of a trained embedder, filled in from the run.

What a card says comes from one record, a dict of sections. Every section and every key may be missing: what nobody
knows is left out. Keys that are not listed here are left out, too, except in the sections that are free.

| section | keys |
|---|---|
| (top) | ``title``, ``license``, ``folder`` (how the code examples call the model's folder) |
| ``base`` | ``model``, ``revision``, ``fingerprint``, ``embedded`` (whether it is a tiny model of this project) |
| ``data`` | ``corpus``, ``digest``, ``queries``, ``negatives`` (per query), ``datasets`` (names, or name -> queries) |
| ``judge`` | ``model``, ``fingerprint``, ``temperature`` |
| ``loss`` | ``kind``, ``student_temperature``, ``judge_temperature``, ``probability_floor``, ``divergence``, \
``in_batch_weight``, ``listwise_weight`` |
| ``training`` | ``steps``, ``batch``, ``chunk``, ``learning_rate``, ``schedule``, ``warmup_steps``, ``weight_decay``, \
``max_gradient_norm``, ``seed``, ``dtype``, ``processes``, ``machine``, ``seconds`` |
| ``tuning`` | ``kind`` (full, lora), ``rank``, ``alpha``, ``dropout``, ``targets``, ``freeze_vision``, ``trainable``, \
``total``, ``merged`` |
| ``input`` | ``prompt``, ``max_tokens``, ``min_pixels``, ``max_pixels`` |
| ``validation`` | free: name -> value, or [value, low, high] |
| ``versions`` | free: package -> version |
| ``provenance`` | free: commit, command, run |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

_TITLE = "unime-kedro embedder"

#: warning at the head of a card
TINY = """> [!WARNING]
> **A toy.** The model it started from is tiny and was trained on synthetic drawings, so that pipelines can be tried
> anywhere. This model knows those drawings and nothing else; its figures say nothing about the method on real models
> and photographs. Do not use it for anything but trying out.
"""

_WHAT = """An embedding model for words, pictures, and both together, trained by `kedro run --pipeline=train` of
unime-kedro, which mines hard negatives with a multimodal LLM as the judge
([UniME-V2](https://arxiv.org/abs/2510.13515)). The embedding is the hidden state of the last token in the last layer,
scaled to length one; similarity is the cosine.
"""

_LABELS: dict[str, dict[str, str]] = {
    "base": {"model": "Base model", "revision": "Revision", "fingerprint": "Fingerprint"},
    "data": {"corpus": "Corpus", "digest": "Digest", "queries": "Queries", "negatives": "Hard negatives per query"},
    "judge": {"model": "Judge", "fingerprint": "Fingerprint", "temperature": "Calibration temperature"},
    "loss": {
        "kind": "Loss",
        "student_temperature": "Student's temperature",
        "judge_temperature": "Judge's temperature",
        "probability_floor": "Floor of probabilities",
        "divergence": "Divergence",
        "in_batch_weight": "Weight of the in-batch term",
        "listwise_weight": "Weight of the listwise messages",
    },
    "training": {
        "steps": "Steps",
        "batch": "Queries per step",
        "chunk": "Contents per forward pass",
        "learning_rate": "Learning rate",
        "schedule": "Schedule",
        "warmup_steps": "Warm-up steps",
        "weight_decay": "Weight decay",
        "max_gradient_norm": "Gradients clipped to",
        "seed": "Seed",
        "dtype": "Precision",
        "processes": "Processes",
        "machine": "Machine",
        "seconds": "Seconds",
    },
    "tuning": {
        "kind": "Tuning",
        "rank": "LoRA rank",
        "alpha": "LoRA alpha",
        "dropout": "LoRA dropout",
        "targets": "LoRA targets",
        "freeze_vision": "Vision tower frozen",
        "trainable": "Trainable parameters",
        "total": "Parameters",
        "merged": "Merged into the weights",
    },
    "input": {
        "prompt": "Prompt",
        "max_tokens": "Longest input, tokens",
        "min_pixels": "Smallest picture, pixels",
        "max_pixels": "Largest picture, pixels",
    },
}

_HERE = """With unime-kedro, as `pool.model` or `train.model`, or in Python:

```python
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.embedding import Embedder

adapter = load_adapter(ModelSpec({folder}))
embedder = Embedder(adapter, prompt={prompt}, max_tokens={max_tokens}, batch_tokens=8192)
vectors = embedder.embed([Content("a dog")])  # Content("words", Path("picture.png"))
```
"""

_TRANSFORMERS = """With {libraries} (pictures: expand the image token as the model's processor does):

```python
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer
{import_peft}
tokenizer = AutoTokenizer.from_pretrained({folder})
model = AutoModelForImageTextToText.from_pretrained({weights}, dtype=torch.float32)
{merge}text = {text}
with torch.no_grad():
    hidden = model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state
vectors = torch.nn.functional.normalize(hidden[:, -1], dim=-1)
```
"""

_SENTENCE_TRANSFORMERS = """With [sentence-transformers](https://sbert.net) 6 or newer. `trust_remote_code` lets it run
`unime_embedding.py` of this folder; a bare string is words, a picture is a PIL image or `{{"image": "picture.png"}}`,
both together `{{"text": "Find a caption for <|image_1|>", "image": "picture.png"}}`:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({folder}, trust_remote_code=True)
vectors = model.encode(["a dog"])
```
"""


def trained_card(record: Record) -> str:
    """Return ``README.md`` of a trained embedder.

    Args:
        record: Sections as listed at the head of this module.
    """
    base = section_of(record, "base")
    tags = ["sentence-transformers", "feature-extraction", "multimodal", "unime-kedro"]
    head = front_matter(record, library="sentence-transformers", task="feature-extraction", tags=tags)
    parts = [head, f"# {one_line(record.get('title') or _TITLE)}\n"]
    if base.get("embedded"):
        parts.append(TINY)
    parts += [_WHAT, _usage(record), facts_tables(record), free_tables(record)]
    return "\n".join(part for part in parts if part)


def section_of(record: Record, name: str) -> Record:
    """Return a section of a record, empty if it is missing."""
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def is_adapter(record: Record) -> bool:
    """Whether the folder holds an adapter, not a model."""
    tuning = section_of(record, "tuning")
    return tuning.get("kind") == "lora" and not tuning.get("merged")


def front_matter(record: Record, *, library: str, task: str, tags: Sequence[str]) -> str:
    """Return the YAML for the hub.

    A base model that is a folder of this machine is left out: the hub knows only its own names.

    Args:
        record: The record.
        library: ``library_name``.
        task: ``pipeline_tag``.
        tags: ``tags``; those of an adapter are added.
    """
    base = section_of(record, "base")
    lora = is_adapter(record)
    model = str(base.get("model") or "")
    on_the_hub = model.count("/") == 1 and not model.startswith((".", "/", "~")) and not base.get("embedded")
    values = {
        "license": record.get("license"),
        "library_name": library,
        "pipeline_tag": task,
        "base_model": model if on_the_hub else None,
        "base_model_relation": ("adapter" if lora else "finetune") if on_the_hub else None,
        "tags": [*tags, *(["lora", "peft"] if lora else [])],
    }
    # a JSON value is a YAML value
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value]
    return "\n".join(["---", *lines, "---"])


def _usage(record: Record) -> str:
    """Three ways to load the model."""
    given = section_of(record, "input")
    folder = repr(str(record.get("folder") or "path/to/this/folder"))
    prompt, max_tokens = given.get("prompt") or "plain", given.get("max_tokens") or 4096
    lora = is_adapter(record)
    base = repr(str(section_of(record, "base").get("model") or "path/to/the/base/model"))
    turn = '[{"role": "user", "content": "a dog"}]'
    chat = f"tokenizer.apply_chat_template({turn}, tokenize=False, add_generation_prompt=True)"
    here = _HERE.format(folder=folder, prompt=repr(str(prompt)), max_tokens=max_tokens)
    there = _TRANSFORMERS.format(
        libraries="transformers and peft" if lora else "transformers",
        import_peft="from peft import PeftModel\n" if lora else "",
        folder=folder,
        weights=base if lora else folder,
        merge=f"model = PeftModel.from_pretrained(model, {folder}).merge_and_unload()\n" if lora else "",
        text=chat if prompt == "chat" else '"a dog"',
    )
    return "\n".join(["## How to load it\n", here, there, _SENTENCE_TRANSFORMERS.format(folder=folder)])


def facts_tables(record: Record) -> str:
    """Tables of the fixed sections."""
    blocks = []
    for title, names in (
        ("Model", ("base", "tuning", "input")),
        ("Data", ("data", "judge")),
        ("Training", ("loss", "training")),
    ):
        rows = [
            (label, section_of(record, name)[key])
            for name in names
            for key, label in _LABELS[name].items()
            if section_of(record, name).get(key) is not None
        ]
        if title == "Data":
            rows += _datasets(section_of(record, "data").get("datasets"))
        blocks.append(_table(title, rows))
    return "\n".join(block for block in blocks if block)


def _datasets(found: Any) -> list[tuple[str, Any]]:
    if isinstance(found, Mapping):
        return [("Data sets", ", ".join(f"{name} ({_value(count)})" for name, count in found.items()))] if found else []
    return [("Data sets", list(found))] if found else []


def free_tables(record: Record) -> str:
    """Tables of the free sections."""
    titles = {"validation": "Validation", "versions": "Versions", "provenance": "Provenance"}
    blocks = [_table(title, list(section_of(record, name).items())) for name, title in titles.items()]
    return "\n".join(block for block in blocks if block)


def _table(title: str, rows: Sequence[tuple[str, Any]]) -> str:
    lines = [f"| {one_line(label)} | {one_line(_value(value))} |" for label, value in rows if value is not None]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *lines, ""]) if lines else ""


def _value(value: Any) -> str:
    """Write a value for readers."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 3 and all(isinstance(v, float) for v in value):
            return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"
        return ", ".join(_value(v) for v in value)
    return str(value)


def one_line(text: str) -> str:
    """Keep a value inside its table cell."""
    return " ".join(str(text).split()).replace("|", "\\|")
