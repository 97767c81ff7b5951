"""How many rows published data have, for a check that nothing is missing."""

from __future__ import annotations

from typing import NamedTuple


class Rows(NamedTuple):
    """A published number of rows, as exactly as it is known."""

    low: int
    high: int


def _rounded(thousands_of_both_splits: float) -> Rows:
    """Return what a split has, by the hub's page, which rounds the sum of two equal splits to three digits."""
    digits = 0.05 if thousands_of_both_splits < 100 else 0.5
    low, high = (1000 * (thousands_of_both_splits + way * digits) / 2 for way in (-1, 1))
    return Rows(round(low), round(high))


#: rows of one split of TIGER-Lab/MMEB-train, by folder: the hub's viewer shows those of both splits, in thousands
MMEB_TRAIN_ROWS: dict[str, Rows] = {
    name: _rounded(thousands)
    for name, thousands in {
        "A-OKVQA": 34.1,
        "CIRR": 52.2,
        "ChartQA": 56.6,
        "DocVQA": 78.9,
        "HatefulMemes": 17.0,
        "ImageNet_1K": 200,
        "InfographicsVQA": 47.9,
        "MSCOCO": 200,
        "MSCOCO_i2t": 227,
        "MSCOCO_t2i": 200,
        "N24News": 98.0,
        "NIGHTS": 31.9,
        "OK-VQA": 18.0,
        "SUN397": 39.7,
        "VOC2007": 15.7,
        "VisDial": 247,
        "Visual7W": 140,
        "VisualNews_i2t": 200,
        "VisualNews_t2i": 200,
        "WebQA": 34.3,
    }.items()
}

#: rows that VLM2Vec and UniME-V2 use of each: the first 50,000 (VLM2Vec's --num_sample_per_subset). With these the data
#: sets sum to 662,000, the number of both papers; whole they are 1,069,000
ROWS_USED = 50_000
#: of each of MMEB's 36 evaluation data sets (VLM2Vec, section on evaluation)
MMEB_EVAL_ROWS = Rows(1000, 1000)
