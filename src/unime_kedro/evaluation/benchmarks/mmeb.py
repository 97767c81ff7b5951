"""MMEB's 36 evaluation data sets (VLM2Vec, ICLR 2025): names and meta-tasks are those of :mod:`unime_kedro.io.mmeb`."""

from __future__ import annotations

from typing import NamedTuple

from unime_kedro.evaluation.benchmarks.declarations import SEE_SOURCE, Benchmark, DatasetDeclaration, mmeb_means
from unime_kedro.io.mmeb import MMEB_META_TASKS

REPOSITORY = "https://huggingface.co/datasets/TIGER-Lab/MMEB-eval"
#: the last commit whose whole hash and history were seen; rows are as uploaded on 8, pictures on 9 October 2024
REVISION = "2f069730be515ea60778413777816b53e2d2a697"

#: data sets without training pairs in MMEB-train (paper, Table 1; VLM2Vec, Table 1)
OUT_OF_DISTRIBUTION = frozenset(
    (
        *("Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211"),
        *("ScienceQA", "VizWiz", "GQA", "TextVQA"),
        *("FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS"),
        *("RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
    )
)
_COCO = "CC BY 4.0 (annotations); pictures: Flickr's terms"


class _Origin(NamedTuple):
    """Where a data set comes from; MMEB asks 1,000 of its rows, as queries with up to 1,000 candidates."""

    source: str
    citation: str
    licence: str = SEE_SOURCE


_VISUAL_NEWS = _Origin(
    "https://github.com/FuxiaoLiu/VisualNews-Repository", "Liu et al., EMNLP 2021", "none stated; given on request"
)
_MSCOCO = _Origin("https://cocodataset.org", "Lin et al., ECCV 2014", _COCO)
_REFCOCO = _Origin("https://github.com/lichengunc/refer", "Kazemzadeh et al., EMNLP 2014; Yu et al., ECCV 2016")
_VISUAL7W = _Origin("https://github.com/yukezhu/visual7w-toolkit", "Zhu et al., CVPR 2016")

_ORIGINS: dict[str, _Origin] = {
    "ImageNet-1K": _Origin("https://www.image-net.org", "Deng et al., CVPR 2009"),
    "N24News": _Origin("https://github.com/billywzh717/N24News", "Wang et al., LREC 2022"),
    "HatefulMemes": _Origin("https://ai.meta.com/tools/hatefulmemes", "Kiela et al., NeurIPS 2020"),
    "VOC2007": _Origin("http://host.robots.ox.ac.uk/pascal/VOC/voc2007", "Everingham et al., IJCV 2010"),
    "SUN397": _Origin("https://vision.princeton.edu/projects/2010/SUN", "Xiao et al., CVPR 2010"),
    "Place365": _Origin("http://places2.csail.mit.edu", "Zhou et al., TPAMI 2018"),
    "ImageNet-A": _Origin(
        "https://github.com/hendrycks/natural-adv-examples", "Hendrycks et al., CVPR 2021", "MIT (repository)"
    ),
    "ImageNet-R": _Origin("https://github.com/hendrycks/imagenet-r", "Hendrycks et al., ICCV 2021"),
    "ObjectNet": _Origin(
        "https://objectnet.dev",
        "Barbu et al., NeurIPS 2019",
        "CC BY 4.0, but never to train on",
    ),
    "Country211": _Origin("https://github.com/openai/CLIP/blob/main/data/country211.md", "Radford et al., ICML 2021"),
    "OK-VQA": _Origin("https://okvqa.allenai.org", "Marino et al., CVPR 2019", "CC BY 4.0 (as mteb records it)"),
    "A-OKVQA": _Origin("https://github.com/allenai/aokvqa", "Schwenk et al., ECCV 2022", "MIT (repository)"),
    "DocVQA": _Origin("https://www.docvqa.org", "Mathew et al., WACV 2021"),
    "InfographicsVQA": _Origin("https://www.docvqa.org", "Mathew et al., WACV 2022"),
    "ChartQA": _Origin("https://huggingface.co/datasets/ahmed-masry/ChartQA", "Masry et al., ACL 2022", "GPL-3.0"),
    "Visual7W": _VISUAL7W,
    "ScienceQA": _Origin("https://github.com/lupantech/ScienceQA", "Lu et al., NeurIPS 2022", "CC BY-NC-SA 4.0"),
    "VizWiz": _Origin("https://vizwiz.org", "Gurari et al., CVPR 2018"),
    "GQA": _Origin(
        "https://cs.stanford.edu/people/dorarad/gqa", "Hudson and Manning, CVPR 2019", "CC BY 4.0 (a copy's card)"
    ),
    "TextVQA": _Origin("https://huggingface.co/datasets/facebook/textvqa", "Singh et al., CVPR 2019", "CC BY 4.0"),
    "VisDial": _Origin("https://visualdialog.org", "Das et al., CVPR 2017", "CC BY 4.0 (a copy's card)"),
    "CIRR": _Origin(
        "https://github.com/Cuberick-Orion/CIRR", "Liu et al., ICCV 2021", "MIT (annotations); pictures: NLVR2's terms"
    ),
    "VisualNews_t2i": _VISUAL_NEWS,
    "VisualNews_i2t": _VISUAL_NEWS,
    "MSCOCO_t2i": _MSCOCO,
    "MSCOCO_i2t": _MSCOCO,
    "NIGHTS": _Origin("https://github.com/ssundaram21/dreamsim", "Fu et al., NeurIPS 2023", "MIT (repository)"),
    "WebQA": _Origin("https://github.com/WebQnA/WebQA", "Chang et al., CVPR 2022"),
    "FashionIQ": _Origin(
        "https://github.com/XiaoxiaoGuo/fashion-iq", "Wu et al., CVPR 2021", "CDLA (version not stated)"
    ),
    "Wiki-SS-NQ": _Origin("https://huggingface.co/datasets/Tevatron/wiki-ss-nq", "Ma et al., EMNLP 2024"),
    "OVEN": _Origin("https://github.com/open-vision-language/oven", "Hu et al., ICCV 2023"),
    "EDIS": _Origin("https://github.com/emerisly/EDIS", "Liu et al., EMNLP 2023", "none stated; given on request"),
    "MSCOCO": _MSCOCO,
    "RefCOCO": _REFCOCO,
    "RefCOCO-Matching": _REFCOCO,
    "Visual7W-Pointing": _VISUAL7W,
}


def _declare(name: str, origin: _Origin) -> DatasetDeclaration:
    return DatasetDeclaration(
        name=name,
        group=MMEB_META_TASKS[name],
        split="OOD" if name in OUT_OF_DISTRIBUTION else "IND",
        metric="precision_at_1",
        source=origin.source,
        licence=origin.licence,
        citation=origin.citation,
        revision=REVISION,
    )


_DATASETS = tuple(_declare(name, origin) for name, origin in _ORIGINS.items())

MMEB = Benchmark(
    name="MMEB",
    title="Massive Multimodal Embedding Benchmark: 36 data sets, 4 meta-tasks (Jiang et al., ICLR 2025)",
    datasets=_DATASETS,
    means=mmeb_means(_DATASETS),
    layout="mmeb",
    expects="<data set>/test-*.parquet; pictures in eval_images/ or images/ (images.zip, unpacked)",
    repository=REPOSITORY,
    image_folders=("eval_images", "images"),
)
