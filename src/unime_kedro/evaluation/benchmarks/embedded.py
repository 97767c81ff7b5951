"""The benchmarks that come with the project: mini-MMEB and its two companions (docs/mini-mmeb.md)."""

from __future__ import annotations

from unime_kedro.evaluation.benchmarks.captioned import both_ways, grouped, grouped_means
from unime_kedro.evaluation.benchmarks.declarations import Benchmark, DatasetDeclaration, mmeb_means
from unime_kedro.evaluation.mini_mmeb import PROMPTS
from unime_kedro.io.sugarcrepe import SUGARCREPE_GROUPS
from unime_kedro.minimmeb.tasks import TASKS, Task

_DRAWN = "drawn by this project: docs/mini-mmeb.md"
_OPENMOJI = "CC BY-SA 4.0 (OpenMoji's drawings)"
_LICENCES = {"openmoji": _OPENMOJI, "twemoji": "CC BY 4.0 (Twemoji's drawings)"}
_CITATIONS = {"openmoji": "OpenMoji 17.0.0", "twemoji": "Twemoji, Twitter and others, 2020"}


def _declare(task: Task) -> DatasetDeclaration:
    real = task.ask == "real"
    return DatasetDeclaration(
        name=task.name,
        group=task.meta_task,
        split="OOD" if task.unseen else "IND",
        metric="precision_at_1",
        source="https://github.com/vzhou842/easy-VQA" if real else _DRAWN,
        licence="MIT" if real else _LICENCES[task.style],
        citation="Zhou, easy-VQA, 2019" if real else _CITATIONS[task.style],
    )


_DATASETS = tuple(_declare(task) for task in TASKS.values())
MINI_MMEB = Benchmark(
    name="mini-MMEB",
    title="mini-MMEB, the embedded corpus: 13 small data sets of drawings in MMEB's shape",
    datasets=_DATASETS,
    means=mmeb_means(_DATASETS),
    layout="mmeb",
    expects="[eval/]<data set>/test-*.parquet and [eval/]images/ (kedro run --pipeline=demo)",
    inside=("", "eval"),
)

EMOJI_CAPTIONS = Benchmark(
    name="EmojiCaptions",
    title="EmojiCaptions: drawn scenes with five captions each, in Flickr30K's layout",
    datasets=both_ways("EmojiCaptions", _DRAWN, _OPENMOJI, _CITATIONS["openmoji"], None),
    means=(),
    layout="captions",
    expects="annotations.csv and images/ (kedro run --pipeline=demo)",
    prompts=PROMPTS,
    files=("annotations.csv",),
)

_CREPE = grouped(SUGARCREPE_GROUPS, _DRAWN, _OPENMOJI, _CITATIONS["openmoji"], None)
EMOJI_CREPE = Benchmark(
    name="EmojiCrepe",
    title="EmojiCrepe: drawn scenes, a caption and the caption with one thing changed, in SugarCrepe's layout",
    datasets=_CREPE,
    means=grouped_means(_CREPE),
    layout="sugarcrepe",
    expects="<change>.json, 7 files, and images/ (kedro run --pipeline=demo)",
    prompts=PROMPTS,
)
