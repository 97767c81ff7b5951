"""Which queries are shown as wins and losses, and what is shown of them."""

from __future__ import annotations

import base64
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_tables import predictions, rankings

from unime_kedro.errors import DataError
from unime_kedro.reporting.cases import Faces, case_views, choose_cases


def ids(table: pl.DataFrame) -> list[int]:
    return table["query_id"].to_list()


def test_wins_losses_and_their_counts() -> None:
    rows = [("new", "D", q, q in (1, 2, 4)) for q in range(6)] + [("old", "D", q, q in (0, 2)) for q in range(5)]
    pair = choose_cases(predictions(rows), "new", "old", n=9, seed=0)
    assert (ids(pair.wins), ids(pair.losses)) == ([1, 4], [0])
    assert (pair.n_wins, pair.n_losses, pair.n) == (2, 1, 5)  # query 5 was not put to both
    assert choose_cases(predictions(rows), "new", "gone", n=9, seed=0).n == 0


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(0, 25), st.integers(0, 3))
def test_the_choice_is_spread_over_data_sets_and_depends_on_the_seed_alone(sizes: list[int], n: int, seed: int) -> None:
    keys = [(f"D{i}", q) for i, size in enumerate(sizes) for q in range(size)]
    table = predictions([(model, d, q, model == "new") for d, q in keys for model in ("new", "old")])
    pair = choose_cases(table, "new", "old", n=n, seed=seed)
    assert pair.wins.height == pair.wins.unique().height == min(n, sum(sizes))
    shares = [pair.wins.filter(pl.col("dataset") == f"D{i}").height for i in range(len(sizes))]
    least = min((share for share, size in zip(shares, sizes, strict=True) if share < size), default=99)
    assert max(shares, default=0) <= least + 1
    shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
    assert choose_cases(shuffled, "new", "old", n=n, seed=seed).wins.equals(pair.wins)


def test_another_seed_is_another_choice() -> None:
    table = predictions([(model, "D", q, model == "new") for q in range(60) for model in ("new", "old")])
    chosen = {tuple(ids(choose_cases(table, "new", "old", n=5, seed=seed).wins)) for seed in range(4)}
    assert len(chosen) == 4


@pytest.fixture
def roots(tmp_path: Path) -> list[str]:
    found = []
    for name, colour in (("one", "red"), ("two", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), colour).save(tmp_path / name / "a.png")
        found.append(str(tmp_path / name))
    return found


def queries(root: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "benchmark": ["B"], "dataset": ["D"], "query_id": [7], "text": ["<|image_1|> what?"], "image": ["a.png"],
            "target_text": ["a cat"], "target_image": [""], "image_root": [root],
        }
    )  # fmt: skip


RANKED = rankings(
    [
        ("old", 7, 1, 0.5, True, None, "a cat", ""),
        ("old", 7, 0, 0.75, False, None, "a dog", ""),
        ("old", 7, 2, 0.25, False, None, "", "a.png"),
        ("new", 7, 0, 0.75, False, 1, "a dog", ""),
        ("new", 7, 1, 0.5, True, 0, "a cat", ""),
        ("new", 7, 2, 0.25, False, 2, "", "a.png"),
        ("new", 8, 0, 0.9, True, 0, "another query's", ""),
    ]
)


def test_a_case_shows_both_rankings_and_what_the_reranker_did(roots: list[str]) -> None:
    case = pl.DataFrame({"benchmark": ["B"], "dataset": ["D"], "query_id": [7]})
    faces = Faces(roots)
    (view,) = case_views(case, ["new", "old"], queries(roots[0]), RANKED, faces, top=2)
    assert (view["query"]["parts"], view["query"]["picture"]) == (["what?"], "r0p0")
    assert view["target"]["parts"] == ["a cat"]
    new, old = view["models"]
    assert (new["reranked"], new["right_place"], new["n"]) == (True, 0, 3)
    assert [(c["place"], c["position"], c["parts"][0]) for c in new["candidates"]] == [(0, 1, "a cat"), (1, 0, "a dog")]
    assert (old["reranked"], old["right_place"]) == (False, 1)
    assert [(c["place"], c["similarity"]) for c in old["candidates"]] == [(0, 0.75), (1, 0.5)]


def test_no_right_one_among_the_first(roots: list[str]) -> None:
    case = pl.DataFrame({"benchmark": ["B"], "dataset": ["D"], "query_id": [7]})
    wrong = RANKED.filter(~pl.col("right"))
    (view,) = case_views(case, ["old"], queries(roots[0]), wrong, Faces(roots), top=5)
    assert view["models"][0]["right_place"] is None


def test_a_query_that_is_not_known_is_named(roots: list[str]) -> None:
    case = pl.DataFrame({"benchmark": ["B"], "dataset": ["D"], "query_id": [9]})
    with pytest.raises(DataError, match=r"B, D, query_id 9 .*--pipeline=evaluate"):
        case_views(case, ["old"], queries(roots[0]), RANKED, Faces(roots), top=5)


def test_pictures_of_the_same_name_in_two_folders_are_two(roots: list[str]) -> None:
    faces = Faces(roots)
    names = [faces.face(root, "", "a.png")["picture"] for root in (*roots, roots[0])]
    assert names == ["r0p0", "r1p0", "r0p0"]
    found = dict(faces.encoded())
    assert sorted(found) == ["r0p0", "r1p0"]
    for root, name in zip(roots, names, strict=False):
        assert base64.b64decode(found[name].split(",")[1]) == (Path(root) / "a.png").read_bytes()
    assert faces.face(roots[0], "x", "../two/a.png")["picture"] is None
