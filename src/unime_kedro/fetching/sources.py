"""Where published data are: repositories and their commits, files, licences; nothing here touches the network.

Facts were looked up in stored copies of the hub's pages, not on the live web (docs/data.md says which). What is not
known is None and never guessed: a commit that is not known is looked up when the data are fetched, and recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

from unime_kedro.evaluation.benchmarks.captioned import COCO, FLICKR30K, SHAREGPT4V, SUGARCREPE, URBAN1K
from unime_kedro.evaluation.benchmarks.mmeb import REVISION as MMEB_EVAL_REVISION
from unime_kedro.fetching.counts import MMEB_TRAIN_ROWS
from unime_kedro.io.sugarcrepe import SUGARCREPE_GROUPS

#: the last commit of TIGER-Lab/MMEB-train whose files were seen: splits original and diverse_instruction, images_zip
MMEB_TRAIN_REVISION = "76dd0a440b6d4c02776830a804443fffbb2d0bfa"


@dataclass(frozen=True)
class Archive:
    """A zip file to unpack.

    Attributes:
        file: Path pattern in the part it belongs to.
        into: Folder it is unpacked into, relative to the source's own; "" for that itself.
    """

    file: str
    into: str


@dataclass(frozen=True)
class HubPart:
    """Files of a data set repository on the Hugging Face hub.

    Attributes:
        repository: ``owner/name``.
        revision: Commit; None where none is known: the newest, which is recorded.
        files: Path patterns (as of :mod:`fnmatch`); ``{dataset}`` and ``{split}`` stand for what is asked for.
        archives: Which of them are zip files.
    """

    repository: str
    revision: str | None
    files: tuple[str, ...]
    archives: tuple[Archive, ...] = ()


@dataclass(frozen=True)
class WebPart:
    """Files at fixed addresses.

    Attributes:
        base: Address that the files' paths are added to.
        files: Path at the address -> path in the folder.
        archives: Which of them are zip files.
    """

    base: str
    files: dict[str, str]
    archives: tuple[Archive, ...] = ()


@dataclass(frozen=True)
class Source:
    """Published data that ``unime fetch`` brings.

    Attributes:
        name: As on the command line.
        title: What it is.
        folder: Below ``01_raw``; what conf/paper reads.
        licence: Of the data.
        parts: Where the files are.
        datasets: Data sets that can be asked for alone; empty where there are no such.
        by_hand: What nobody but the user can bring, and where it belongs; "" for nothing.
        splits: Names for ``{split}``, the default first.
        used_by: What reads it.
    """

    name: str
    title: str
    folder: str
    licence: str
    parts: tuple[HubPart | WebPart, ...]
    datasets: tuple[str, ...] = ()
    by_hand: str = ""
    splits: tuple[str, ...] = ()
    used_by: str = ""


def _hub(repository: str) -> str:
    return repository.removeprefix("https://huggingface.co/datasets/")


_EVALUATION = "kedro run --config=conf/paper/variants/all-benchmarks.yml"
_SUGARCREPE_REVISION = SUGARCREPE.datasets[0].revision

_ALL = (
    Source(
        "mmeb-train",
        "MMEB's 20 training data sets, TIGER-Lab/MMEB-train",
        "MMEB-train",
        "Apache-2.0 as a compilation; each data set has its publisher's own",
        (
            HubPart(
                "TIGER-Lab/MMEB-train",
                MMEB_TRAIN_REVISION,
                ("{dataset}/{split}-*.parquet", "images_zip/{dataset}.zip"),
                (Archive("images_zip/{dataset}.zip", "images"),),
            ),
        ),
        datasets=tuple(MMEB_TRAIN_ROWS),
        splits=("original", "diverse_instruction"),
        used_by="kedro run --env=paper --pipeline=mine",
    ),
    Source(
        "mmeb-eval",
        "MMEB's 36 evaluation data sets, TIGER-Lab/MMEB-eval",
        "MMEB-eval",
        "Apache-2.0 as a compilation; `unime benchmarks MMEB` has that of each data set",
        (
            HubPart(
                "TIGER-Lab/MMEB-eval",
                MMEB_EVAL_REVISION,
                ("*/test-*.parquet", "images.zip"),
                (Archive("images.zip", "images"),),
            ),
        ),
        used_by="kedro run --env=paper --pipeline=evaluate",
    ),
    Source(
        "flickr30k",
        FLICKR30K.title,
        "flickr30k",
        FLICKR30K.datasets[0].licence,
        (
            HubPart(
                _hub(FLICKR30K.repository),
                FLICKR30K.datasets[0].revision,
                ("flickr_annotations_30k.csv", "flickr30k-images.zip"),
                (Archive("flickr30k-images.zip", ""),),
            ),
        ),
        used_by=_EVALUATION,
    ),
    Source(
        "coco",
        COCO.title,
        "coco",
        COCO.datasets[0].licence,
        (
            HubPart(
                _hub(COCO.repository),
                COCO.datasets[0].revision,
                ("test_5k_mscoco_2014.csv", "images_mscoco_2014_5k_test.zip"),
                (Archive("images_mscoco_2014_5k_test.zip", ""),),
            ),
        ),
        used_by=_EVALUATION,
    ),
    Source(
        "sharegpt4v",
        SHAREGPT4V.title,
        "sharegpt4v",
        SHAREGPT4V.datasets[0].licence,
        (
            HubPart(
                _hub(SHAREGPT4V.repository),
                SHAREGPT4V.datasets[0].revision,
                ("share-captioner_coco_lcs_sam_1246k_1107.json",),
            ),
        ),
        by_hand=(
            "The pictures of its first 1,000 rows are from SA-1B, which is given to those who accept its licence at "
            "https://ai.meta.com/datasets/segment-anything-downloads. Put them where the rows' paths say, relative to "
            "the folder: {folder}/sam/images/sa_<n>.jpg."
        ),
        used_by=_EVALUATION,
    ),
    Source(
        "urban1k",
        URBAN1K.title,
        "urban1k",
        URBAN1K.datasets[0].licence,
        (
            HubPart(
                _hub(URBAN1K.repository),
                URBAN1K.datasets[0].revision,
                ("Urban1k.zip",),
                (Archive("Urban1k.zip", ""),),
            ),
        ),
        used_by=_EVALUATION,
    ),
    Source(
        "sugarcrepe",
        SUGARCREPE.title,
        "sugarcrepe",
        SUGARCREPE.datasets[0].licence,
        (
            WebPart(
                f"https://raw.githubusercontent.com/RAIVNLab/sugar-crepe/{_SUGARCREPE_REVISION}/data/",
                {f"{name}.json": f"data/{name}.json" for name in SUGARCREPE_GROUPS},
            ),
            WebPart(
                "http://images.cocodataset.org/zips/",
                {"val2017.zip": "val2017.zip"},
                (Archive("val2017.zip", ""),),
            ),
        ),
        used_by=_EVALUATION,
    ),
)

#: name on the command line -> source
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
