"""The model card of a trained reranker, filled in from the run."""

from __future__ import annotations

from unime_kedro.learning.embedder_card import (
    TINY,
    Record,
    facts_tables,
    free_tables,
    front_matter,
    is_adapter,
    one_line,
    section_of,
)

_TITLE = "unime-kedro reranker"

_WHAT = """A multimodal LLM that reorders the first candidates of an embedder, trained by `kedro run --pipeline=rerank`
of unime-kedro on mined hard negatives ([UniME-V2](https://arxiv.org/abs/2510.13515)). It answers two questions:

- pairwise, the judge's prompt: does this candidate meet the requirements of the query? `Yes` or `No`;
- listwise: which of the numbered candidates meets them best? `Ans: (3)`.

Both answers end with the end of the turn. It was trained to say Yes and No to positives and hardest negatives, not how
sure to be: **its pairwise scores are not calibrated**. A temperature that was fitted for the model it started from is
not its own, and none is in this folder.

The validation below is on held-out training queries. Their negatives were chosen by a judge that rates each of them
below the positive; if this model started from that judge, its pairwise figures before training are perfect, or nearly
so, by that choice alone.
"""

_HERE = """## How to load it

With unime-kedro, as `reranker` of a model in `evaluate.models`, or in Python:

```python
from unime_kedro.mllm.adapters import load_adapter
from unime_kedro.mllm.content import Content, ModelSpec
from unime_kedro.mllm.reranker import Reranker

reranker = Reranker(load_adapter(ModelSpec({folder})), max_tokens={max_tokens}, batch_tokens=16384)
(choice,) = reranker.choose([(Content("a dog"), [Content("a cat"), Content("a puppy")])])
print(choice.number)  # from 1
```
"""

_LORA = """
The folder holds a LoRA adapter: its base model has to be found where the table below names it.
"""


def reranker_card(record: Record) -> str:
    """Return ``README.md`` of a trained reranker.

    Args:
        record: Sections as listed in :mod:`unime_kedro.learning.embedder_card`.
    """
    folder = repr(str(record.get("folder") or "path/to/this/folder"))
    max_tokens = section_of(record, "input").get("max_tokens") or 4096
    head = front_matter(
        record, library="transformers", task="image-text-to-text", tags=["reranking", "multimodal", "unime-kedro"]
    )
    parts = [head, f"# {one_line(record.get('title') or _TITLE)}\n"]
    if section_of(record, "base").get("embedded"):
        parts.append(TINY)
    parts += [_WHAT, _HERE.format(folder=folder, max_tokens=max_tokens) + (_LORA if is_adapter(record) else "")]
    parts += [facts_tables(record), free_tables(record)]
    return "\n".join(part for part in parts if part)
