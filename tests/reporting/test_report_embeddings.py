"""Which contents are embedded for the projection, and what comes of their vectors."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unime_kedro.reporting.embeddings import choose_contents, no_projection, projected


def contents(texts: list[int], pictures: list[int]) -> pl.DataFrame:
    rows = [(f"T{i}", "/r", f"words {i} {k}", "") for i, n in enumerate(texts) for k in range(n)]
    rows += [(f"P{i}", "/r", "Represent.", f"{i}-{k}.png") for i, n in enumerate(pictures) for k in range(n)]
    return pl.DataFrame(rows, dict.fromkeys(("dataset", "image_root", "text", "image"), pl.String), orient="row")


@given(
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.integers(0, 30),
    st.integers(0, 2),
)
def test_as_many_texts_as_pictures_from_all_data_sets(texts: list[int], pictures: list[int], n: int, seed: int) -> None:
    table = contents(texts, pictures)
    chosen = choose_contents(table, n, seed)
    counts = dict(chosen["modality"].value_counts().rows())
    assert counts.get("text", 0) == min(n // 2, sum(texts))
    assert counts.get("picture", 0) == min(n // 2, sum(pictures))
    taken = dict(chosen["dataset"].value_counts().rows())
    for prefix, sizes in (("T", texts), ("P", pictures)):
        shares = [taken.get(f"{prefix}{i}", 0) for i in range(len(sizes))]
        least = min((share for share, size in zip(shares, sizes, strict=True) if share < size), default=99)
        assert max(shares, default=0) <= least + 1
    twice = pl.concat([table, table]).sample(fraction=1, shuffle=True, seed=seed)
    assert choose_contents(twice, n, seed).equals(chosen)


def test_vectors_become_points_and_a_gap() -> None:
    chosen = choose_contents(contents([2], [1]), 4, 0)
    assert chosen["modality"].to_list() == ["picture", "text", "text"]  # by data set: P0, T0
    vectors = np.array([[0, 1], [1, 0], [0.6, 0.8]])
    table, gaps = projected(chosen, {"m": vectors, "broken": np.full((3, 2), np.nan)})
    assert table["model"].to_list() == ["m"] * 3
    assert list(gaps) == ["m"]
    assert gaps["m"]["distance"] == pytest.approx(np.hypot(0.8, 0.6))  # centres (0, 1) and (.8, .4)
    assert (gaps["m"]["texts"], gaps["m"]["pictures"]) == (2, 1)
    assert gaps["m"]["explained_x"] + gaps["m"]["explained_y"] == pytest.approx(1)
    between = np.linalg.norm(table.select("x", "y").to_numpy()[0] - table.select("x", "y").to_numpy()[1])
    assert between == pytest.approx(np.sqrt(2))  # two dimensions are shown as they are
    assert table.schema == no_projection().schema
