"""The two forms that every benchmark's data sets come in, whatever their layout on disk."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl


class OwnCandidates(NamedTuple):
    """Every query brings its own candidates: MMEB, SugarCrepe.

    Attributes:
        dataset: Its name.
        contents: content_id Int64 (distinct), text, image (path under the image root, "" for none).
        queries: query_id Int64 (distinct), content_id, candidates List[Int64] (content ids, the target first), unit
            Int64 (what is resampled together for an interval: the query itself, or what several share, such as their
            picture).
    """

    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame


class SharedCandidates(NamedTuple):
    """All targets are candidates of every query: Flickr30K, COCO, ShareGPT4V, Urban1K, one way.

    Attributes:
        dataset: Its name, such as ``Flickr30K_i2t``.
        contents: As for :class:`OwnCandidates`.
        queries: query_id Int64 (distinct), content_id, group Int64 (targets of the same group are right), unit Int64.
        targets: target_id Int64 (dense from 0, in row order), content_id, group Int64.
    """

    dataset: str
    contents: pl.DataFrame
    queries: pl.DataFrame
    targets: pl.DataFrame


Task = OwnCandidates | SharedCandidates
