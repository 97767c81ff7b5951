"""Looking for training data among test data: planted leaks of every kind, found where they are and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.evaluation.leakage import LEAKS_SCHEMA, find_leaks, fingerprint_training, leakage_counts
from unime_kedro.evaluation.picture_hashes import hash_picture
from unime_kedro.evaluation.tasks import OwnCandidates, SharedCandidates
from unime_kedro.mining.images import hash_bytes
from unime_kedro.mining.items import content_key


def scene(seed: int) -> Image.Image:
    """A picture with something at every scale, unlike any other."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((72, 72), Image.Resampling.BICUBIC)


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    for folder in (trained, tested):
        folder.mkdir()
    for i in range(6):
        scene(i).save(trained / f"{i}.png")
    scene(0).save(tested / "same.png")  # the same bytes under another name
    scene(1).resize((40, 40)).save(tested / "smaller.png")
    scene(2).save(tested / "compressed.jpg", quality=60)
    for i in (10, 11, 12):
        scene(i).save(tested / f"{i}.png")
    return trained, tested


TRAINING = pl.DataFrame(
    [
        (0, "find it", "0.png"),
        (1, "a cat", ""),
        (2, "find it", "1.png"),
        (3, "what is it?", "0.png"),
        (4, "", "2.png"),
        (5, "a dog", ""),
        (6, "a cat", ""),
    ],
    schema=["item_id", "text", "image"],
    orient="row",
)
CONTENTS = pl.DataFrame(
    [
        (0, "find it", "same.png"),  # exact: item 0
        (1, "other words", "same.png"),  # same image: items 0 and 3
        (2, "find it", "smaller.png"),  # near: item 2
        (3, "find it", "10.png"),  # words alone are the same
        (4, "a cat", ""),  # exact, words: item 1
        (5, "a bird", ""),
        (6, "", "compressed.jpg"),  # near: item 4
        (7, "a dog", ""),  # exact, words: item 5
        (8, "", "11.png"),
    ],
    schema=["content_id", "text", "image"],
    orient="row",
)
OWN = OwnCandidates(
    "own",
    CONTENTS,
    pl.DataFrame(
        {
            "query_id": [0, 1, 2, 3],
            "content_id": [0, 1, 2, 3],
            "candidates": [[4, 5], [5, 4, 7], [6, 4], [8, 7, 6]],
            "unit": [0, 1, 2, 3],
        }
    ),
)
#: query 5 has two right targets; the one that leaks is wrong for query 6
SHARED = SharedCandidates(
    "shared",
    CONTENTS,
    pl.DataFrame({"query_id": [5, 6], "content_id": [5, 3], "group": [0, 1], "unit": [5, 6]}),
    pl.DataFrame({"target_id": [0, 1, 2, 3], "content_id": [2, 8, 5, 0], "group": [0, 0, 1, 2]}),
)


def search(roots, tasks=(OWN,), training=TRAINING, hash_distance=4, workers=1):
    trained = fingerprint_training(training, roots[0], workers=workers)
    return find_leaks(trained, list(tasks), roots[1], hash_distance=hash_distance, workers=workers)


def test_every_kind_is_found_where_it_stands(roots):
    found = search(roots)
    assert found.schema == pl.Schema(LEAKS_SCHEMA)
    assert found.drop("dataset", "distance").rows() == [
        (0, 0, "query", "exact", "image_text", 0),
        (1, 1, "query", "same_image", "image_text", 0),
        (2, 2, "query", "near", "image_text", 2),
        (0, 4, "target", "exact", "text", 1),
        (2, 6, "target", "near", "image", 4),
        # content 7 is a candidate twice and right for none; contents 4 and 6 are right for some query
        (None, 7, "candidate", "exact", "text", 5),
    ]
    near = found["kind"] == "near"
    assert (found["distance"].filter(near) <= 4).all()
    assert (found["distance"].filter(~near) == 0).all()


def test_counts(roots):
    counts = leakage_counts(search(roots, (OWN, SHARED)), [OWN, SHARED])
    nothing = {"exact": 0, "same_image": 0, "near": 0, "words": 0}
    assert counts["own"] == {
        "queries": 4,
        "candidates": 1,  # content 7: 4, 5, 6 and 8 are targets
        "leaked_share": 0.75,
        "query": {"exact": 1, "same_image": 1, "near": 1, "words": 0},
        "target": {**nothing, "near": 1, "words": 1},
        "candidate": {**nothing, "words": 1},
    }
    assert counts["shared"] == {
        "queries": 2,
        "candidates": 1,  # content 0 is of group 2, for which nobody asks
        "leaked_share": 0.5,
        "query": nothing,
        "target": {**nothing, "near": 1},
        "candidate": {**nothing, "exact": 1},
    }
    assert leakage_counts(search(roots).clear(), [OWN])["own"]["leaked_share"] == 0


def test_a_query_with_several_leaked_targets_counts_once_by_the_strongest(roots):
    task = SHARED._replace(targets=SHARED.targets.with_columns(group=pl.lit(0)), queries=SHARED.queries[:1])
    found = search(roots, [task])
    assert found.filter(role="target")["content_id"].to_list() == [0, 2]
    assert leakage_counts(found, [task])["shared"]["target"] == {"exact": 1, "same_image": 0, "near": 0, "words": 0}


def test_no_distance_no_nearness(roots):
    narrow = search(roots, hash_distance=0)
    assert narrow["distance"].to_list() == [0] * len(narrow)
    assert narrow["content_id"].to_list()[:2] == [0, 1]
    everything = search(roots, hash_distance=64)
    # every picture is as near as that to some other
    assert everything.filter(role="query")["kind"].to_list() == ["exact", "same_image", "near", "near"]
    with pytest.raises(ValueError, match="within 0 and 64, is 65"):
        search(roots, hash_distance=65)


def test_of_equally_near_items_the_first_is_named_whatever_their_order(roots):
    scene(1).save(roots[0] / "again.bmp")  # other bytes, same picture
    more = pl.concat([TRAINING, pl.DataFrame({"item_id": [9], "text": ["x"], "image": ["again.bmp"]})])
    backwards = more.with_columns(item_id=9 - pl.col("item_id"))  # now again.bmp has item 0, and 1.png item 7
    for table, expected in ((more, 2), (backwards, 0)):
        for seed in range(3):
            shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
            assert search(roots, training=shuffled).filter(content_id=2)["item_id"].to_list() == [expected]


def test_the_nearest_equals_a_slow_loop(tmp_path):
    for i in range(60):
        scene(100 + i).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(60)]
    hashes = [hash_picture(tmp_path / name) for name in names]
    training = pl.DataFrame({"item_id": range(40), "text": "", "image": names[:40]})
    contents = pl.DataFrame({"content_id": range(40, 60), "text": "", "image": names[40:]})
    queries = pl.DataFrame({"query_id": range(20), "content_id": range(40, 60), "group": 0, "unit": range(20)})
    task = SharedCandidates("d", contents, queries, pl.DataFrame({"target_id": [0], "content_id": [40], "group": [0]}))
    nearest = [min(((hashes[i] ^ hashes[c]).bit_count(), i) for i in range(40)) for c in range(40, 60)]
    limit = sorted(nearest)[10][0]  # some are as far as that, and some farther
    found = search((tmp_path, tmp_path), [task], training=training, hash_distance=limit).filter(role="query")
    expected = [(c, i, bits) for c, (bits, i) in enumerate(nearest, 40) if bits <= limit]
    assert 0 < len(expected) < 20
    assert found.select("content_id", "item_id", "distance").rows() == expected
    # several items are as near as the nearest, so that the rule for ties is put to the test
    assert any(
        sum((hashes[i] ^ hashes[c]).bit_count() == bits for i in range(40)) > 1
        for c, (bits, _) in enumerate(nearest, 40)
    )


def test_rows_and_workers_do_not_matter(roots):
    expected = search(roots, (OWN, SHARED))
    tasks = [
        SHARED._replace(contents=CONTENTS.reverse(), queries=SHARED.queries.reverse()),
        OWN._replace(contents=CONTENTS.reverse(), queries=OWN.queries.reverse()),
    ]
    assert search(roots, tasks, training=TRAINING.reverse()).equals(expected)
    assert search(roots, (OWN, SHARED), workers=2).equals(expected)


def test_keys_are_those_of_ingest(roots):
    found = fingerprint_training(TRAINING, roots[0]).contents
    picture = hash_bytes((roots[0] / "0.png").read_bytes())
    assert found["content_key"][0] == content_key("find it", picture)
    assert found["modality"].to_list() == ["image_text", "text", "image_text", "image_text", "image", "text", "text"]


def test_texts_alone_need_no_pictures(tmp_path):
    texts = CONTENTS.with_columns(image=pl.lit(None, pl.String))
    found = find_leaks(
        fingerprint_training(TRAINING.with_columns(image=pl.lit("")), tmp_path / "none"),
        [OWN._replace(contents=texts)],
        tmp_path / "none",
        hash_distance=4,
    )
    assert set(found["kind"]) == {"exact"}
    assert set(found["modality"]) <= {"text", "image"}  # a content of nothing is no text
    words = leakage_counts(found, [OWN])["own"]
    assert words["target"]["words"] > 0
    assert words["leaked_share"] == 0
    nothing = fingerprint_training(TRAINING.clear(), tmp_path)
    assert not len(find_leaks(nothing, [OWN._replace(contents=texts)], tmp_path, hash_distance=4))
    assert not len(find_leaks(nothing, [], tmp_path, hash_distance=4))


def test_pictures_that_cannot_be_read(roots):
    (roots[0] / "1.png").unlink()
    (roots[0] / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"training item 2: the picture .*1.png cannot be used: image_missing.* 1 more"):
        search(roots)
    for i in (1, 2):
        scene(i).save(roots[0] / f"{i}.png")
    data = (roots[1] / "compressed.jpg").read_bytes()
    (roots[1] / "compressed.jpg").write_bytes(data[: len(data) // 2])  # the header is sound
    with pytest.raises(DataError, match=r"compressed.jpg cannot be decoded .*Replace it"):
        search(roots)
    with pytest.raises(DataError, match="training contents lack text; expected item_id, text and image"):
        search(roots, training=TRAINING.drop("text"))


def test_bytes_decide_about_same_images(roots):
    # one pixel's least bit: other bytes, the same picture to the eye
    image = scene(0)
    image.putpixel((0, 0), tuple(v ^ 1 for v in image.getpixel((0, 0))))
    image.save(roots[1] / "same.png")
    found = search(roots).filter(pl.col("content_id") < 2)
    assert found["kind"].to_list() == ["near", "near"]
