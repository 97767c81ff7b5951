"""An embedder on everything that mini-MMEB asks: evaluation sets, five captions a picture, compositional captions."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from unime_kedro.errors import DataError
from unime_kedro.evaluation.captions import CAPTION, CaptionPrompts
from unime_kedro.evaluation.embedders import PREDICTIONS_SCHEMA
from unime_kedro.evaluation.encoding import Embed
from unime_kedro.evaluation.scoring import score_tasks
from unime_kedro.evaluation.summaries import summarise
from unime_kedro.minimmeb import texts
from unime_kedro.minimmeb.tasks import META_TASKS, TASKS
from unime_kedro.mining.images import ProgressFactory

#: mini-MMEB's words around pictures and captions, the same as in its retrieval sets
PROMPTS = CaptionPrompts(
    image_query=texts.CAPTION_QUERY,
    caption_query=texts.IMAGE_QUERY.format(caption=CAPTION),
    image_target=texts.IMAGE_TARGET,
)


def evaluate_mini_mmeb(
    root: str | Path, embed: Embed, *, seed: int = 0, progress: ProgressFactory | None = None
) -> dict[str, float]:
    """Measure an embedder on mini-MMEB; as :func:`measure_mini_mmeb`, without the predictions."""
    return measure_mini_mmeb(root, embed, seed=seed, progress=progress)[1]


def measure_mini_mmeb(
    root: str | Path, embed: Embed, *, seed: int = 0, progress: ProgressFactory | None = None
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Measure an embedder on mini-MMEB.

    ===============================  ===================================================================================
    metric                           definition
    ===============================  ===================================================================================
    precision_at_1/<name>            Precision@1 of a data set, ties counted as wrong; the unweighted mean of data sets
                                     for a meta-task, for ``in_distribution``, ``out_of_distribution`` and ``all``
    recall_at_1/EmojiCaptions_<way>  five captions a picture, among all captions or pictures (Flickr30K's measure)
    compositional/<name>             share of pictures nearer to the caption than to the changed one, by file, and the
                                     unweighted mean of files for ``replace``, ``swap``, ``add`` (SugarCrepe's measure)
    ..._low/..., ..._high/...        95 % interval of each, bootstrapped over queries (over pictures for captions)
    ..._chance/...                   one in as many as there are candidates; what is known without the picture (a
                                     question names its answers) gives more, see docs/mini-mmeb.md
    ===============================  ===================================================================================

    Args:
        root: Folder of the corpus.
        embed: The embedder (see :mod:`.embedders`).
        seed: Seed of the bootstrap.
        progress: ``unime_kedro.progress.progress`` or alike.

    Returns:
        One row per query of all evaluation sets (``benchmark``, then :data:`.embedders.PREDICTIONS_SCHEMA`),
        and metric -> value.

    Raises:
        DataError: If the corpus, or a part of it, is not there.
    """
    root = Path(root)
    if not (root / "eval").is_dir():
        raise DataError(f"{root}: expected mini-MMEB with its folder eval; kedro run --pipeline=demo writes it.")
    predictions = _score("mini-MMEB", root / "eval", embed, progress)
    metrics = _figures("precision_at_1", summarise(predictions, META_TASKS, seed=seed))
    seen = {name: "out_of_distribution" if task.unseen else "in_distribution" for name, task in TASKS.items()}
    by_side = summarise(predictions, seen, seed=seed).filter(pl.col("kind") == "group")
    metrics |= _figures("precision_at_1", by_side) | _captions(root, embed, seed) | _changed(root, embed, seed)
    return predictions.select(pl.lit("mini-MMEB").alias("benchmark"), *PREDICTIONS_SCHEMA), metrics


def _score(benchmark: str, folder: Path, embed: Embed, progress: ProgressFactory | None = None) -> pl.DataFrame:
    from unime_kedro.evaluation.benchmarks import load_benchmark  # which takes the prompts from here

    loaded = load_benchmark(benchmark, folder, folder / "images")
    return score_tasks(loaded.tasks, embed, loaded.image_root, top=1, progress=progress).predictions


def _captions(root: Path, embed: Embed, seed: int) -> dict[str, float]:
    folder = root / "captions" / "EmojiCaptions"
    if not folder.is_dir():  # demo.caption_images: 0
        return {}
    summary = summarise(_score("EmojiCaptions", folder, embed), {}, unit="unit", seed=seed)
    return _figures("recall_at_1", summary.filter(pl.col("kind") == "dataset"))


def _changed(root: Path, embed: Embed, seed: int) -> dict[str, float]:
    folder = root / "compositional" / "EmojiCrepe"
    if not folder.is_dir():  # demo.compositional_entries: 0
        return {}
    rows = _score("EmojiCrepe", folder, embed)
    groups = {name: name.partition("_")[0] for name in rows["dataset"].unique()}
    return _figures("compositional", summarise(rows, groups, unit="unit", seed=seed))


def _figures(metric: str, summary: pl.DataFrame) -> dict[str, float]:
    """Return a summary's values, interval ends and chance levels under flat names."""
    found: dict[str, float] = {}
    for name, *values in summary.select("name", "value", "low", "high", "chance").iter_rows():
        found |= {f"{metric}{end}/{name}": v for end, v in zip(("", "_low", "_high", "_chance"), values, strict=True)}
    return found
