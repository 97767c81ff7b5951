"""Benchmarks of captioned pictures: Flickr30K, COCO, ShareGPT4V, Urban1K both ways, and SugarCrepe."""

from __future__ import annotations

from unime_kedro.evaluation.benchmarks.declarations import Benchmark, DatasetDeclaration, Mean, group_means
from unime_kedro.evaluation.captions import CAPTION, CaptionPrompts
from unime_kedro.io.sugarcrepe import SUGARCREPE_GROUPS

#: UniME-V2's evaluation (release, Embedding/evaluation/utils/flickr_coco_sharegpt4v_urban1K.py, sugarcrepe.py): a
#: picture has one embedding for both ways, captions have no words around them
RELEASE_PROMPTS = CaptionPrompts(
    image_query="<|image_1|> Find an image caption describing the given image.",
    caption_query=CAPTION,
    image_target="<|image_1|> Find an image caption describing the given image.",
)
#: MMEB's own words for MSCOCO_i2t and MSCOCO_t2i, which models trained on MMEB have seen
MMEB_PROMPTS = CaptionPrompts(
    image_query="<|image_1|>\nFind an image caption describing the given everyday image.\n",
    caption_query=f"Find me an everyday image that matches the given caption: {CAPTION}\n",
    image_target="<|image_1|>\nRepresent the given image.\n",
)


def both_ways(
    name: str, source: str, licence: str, citation: str, revision: str | None
) -> tuple[DatasetDeclaration, ...]:
    """Declare a set of captioned pictures as two data sets, ``<name>_i2t`` and ``<name>_t2i``."""
    return tuple(
        DatasetDeclaration(f"{name}_{way}", way, None, "recall_at_1", source, licence, citation, revision)
        for way in ("i2t", "t2i")
    )


def grouped(
    files: dict[str, str], source: str, licence: str, citation: str, revision: str | None
) -> tuple[DatasetDeclaration, ...]:
    """Declare SugarCrepe's files, replaced things first as in its own tables."""
    order = ("replace", "swap", "add")
    names = sorted(files, key=lambda name: (order.index(files[name]), list(files).index(name)))
    return tuple(
        DatasetDeclaration(name, files[name], None, "accuracy", source, licence, citation, revision) for name in names
    )


def grouped_means(datasets: tuple[DatasetDeclaration, ...]) -> tuple[Mean, ...]:
    """Return a mean per kind of change, and one over all files."""
    return (*group_means(datasets), Mean("all", tuple(one.name for one in datasets)))


FLICKR30K = Benchmark(
    name="Flickr30K",
    title="Flickr30K, Karpathy's test split: 1,000 pictures, 5 captions each",
    datasets=both_ways(
        "Flickr30K",
        "https://shannon.cs.illinois.edu/DenotationGraph",
        "non-commercial research and education; pictures: Flickr's terms",
        "Young et al., TACL 2014",
        "2b239befc81b6e3f035ce6bd52f5f4d60f5625f7",
    ),
    means=(),
    layout="captions",
    expects="flickr_annotations_30k.csv and flickr30k-images/ (or dataset_flickr30k.json)",
    repository="https://huggingface.co/datasets/nlphuji/flickr30k",
    prompts=RELEASE_PROMPTS,
    image_folders=("flickr30k-images", "images"),
    files=("flickr_annotations_30k.csv", "annotations.csv", "dataset_flickr30k.json"),
    pictures=1000,
    captions=5,
)

COCO = Benchmark(
    name="COCO",
    title="COCO 2014, Karpathy's test split: 5,000 pictures, the first 5 captions of each",
    datasets=both_ways(
        "COCO",
        "https://cocodataset.org",
        "CC BY 4.0 (annotations); pictures: Flickr's terms",
        "Lin et al., ECCV 2014; split: Karpathy and Fei-Fei, CVPR 2015",
        "551c4f7667f06fa82b4ef0a07617bfc4cf324ac3",
    ),
    means=(),
    layout="captions",
    expects="test_5k_mscoco_2014.csv and images_mscoco_2014_5k_test/ (or dataset_coco.json and val2014/)",
    repository="https://huggingface.co/datasets/nlphuji/mscoco_2014_5k_test_image_text_retrieval",
    prompts=RELEASE_PROMPTS,
    image_folders=("images_mscoco_2014_5k_test", "images", ""),
    files=("test_5k_mscoco_2014.csv", "annotations.csv", "dataset_coco.json"),
    pictures=5000,
    captions=5,
)

SHAREGPT4V = Benchmark(
    name="ShareGPT4V",
    title="ShareGPT4V: the first 1,000 pictures, one long caption each",
    datasets=both_ways(
        "ShareGPT4V",
        "https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
        "CC BY-NC 4.0",
        "Chen et al., ECCV 2024",
        "55d02b0bc53a2754095a14110dda6daedd95671d",
    ),
    means=(),
    layout="sharegpt4v",
    expects="[sharegpt4v/] share-captioner_coco_lcs_sam_1246k_1107.json; picture paths start from the folder",
    repository="https://huggingface.co/datasets/Lin-Chen/ShareGPT4V",
    prompts=RELEASE_PROMPTS,
    image_folders=("",),
    inside=("", "sharegpt4v", "shareGPT4v"),
    files=("share-captioner_coco_lcs_sam_1246k_1107.json",),
    pictures=1000,
)

URBAN1K = Benchmark(
    name="Urban1K",
    title="Urban1K: 1,000 pictures of streets, one long caption each (Long-CLIP)",
    datasets=both_ways(
        "Urban1K",
        "https://huggingface.co/datasets/BeichenZhang/Urban1k",
        "CC BY-NC 4.0",
        "Zhang et al., ECCV 2024",
        None,
    ),
    means=(),
    layout="urban1k",
    expects="[Urban1k/]caption/<n>.txt and [Urban1k/]image/<n>.jpg (Urban1k.zip, unpacked)",
    repository="https://huggingface.co/datasets/BeichenZhang/Urban1k",
    prompts=RELEASE_PROMPTS,
    image_folders=("image",),
    inside=("", "Urban1k"),
    pictures=1000,
)

_SUGARCREPE = grouped(
    SUGARCREPE_GROUPS,
    "https://github.com/RAIVNLab/sugar-crepe",
    "MIT; pictures: COCO's terms",
    "Hsieh et al., NeurIPS 2023",
    "c58a1fce695ee4f9d42ca15b6eeaacd84809416a",
)
SUGARCREPE = Benchmark(
    name="SugarCrepe",
    title="SugarCrepe: a picture, its caption, and the caption with one thing changed; 7 kinds of change",
    datasets=_SUGARCREPE,
    means=grouped_means(_SUGARCREPE),
    layout="sugarcrepe",
    expects="[data/]<change>.json, 7 files; pictures in val2017/ or images/ (COCO 2017, validation)",
    repository="https://github.com/RAIVNLab/sugar-crepe",
    prompts=RELEASE_PROMPTS,
    image_folders=("val2017", "images", "coco/images/val2017", "coco2017/val2017"),
    inside=("", "data"),
)
