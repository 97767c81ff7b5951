"""Perceptual hashes: photographs that were changed stay near, others do not, and the nearest is the nearest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from unime_kedro.errors import DataError
from unime_kedro.evaluation.picture_hashes import hash_picture, hash_pictures, nearest_hashes


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Eight parts of two photographs that scikit-learn brings along (CC BY)."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    parts = []
    for name in ("china.jpg", "flower.jpg"):
        picture = Image.open(folder / name).convert("RGB")
        parts += [picture.crop((x, y, x + 320, y + 210)) for x in (0, 320) for y in (0, 210)]
    return parts


def apart(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def hashed(image: Image.Image, file: Path, **options) -> int:
    image.save(file, **options)
    found = hash_picture(file)
    assert found is not None
    return found


def test_changed_photographs_stay_near_and_others_do_not(photographs, tmp_path):
    hashes = [hashed(one, tmp_path / "a.png") for one in photographs]
    for image, own in zip(photographs, hashes, strict=True):
        changed = {
            "compressed": hashed(image, tmp_path / "b.jpg", quality=40),
            "smaller": hashed(image.resize((160, 105), Image.Resampling.LANCZOS), tmp_path / "c.png"),
            "darker": hashed(ImageEnhance.Brightness(image).enhance(0.8), tmp_path / "d.png"),
        }
        assert max(apart(own, other) for other in changed.values()) <= 4, changed
    others = [apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 12


def test_the_bits_are_those_of_low_frequencies(photographs, tmp_path):
    found = hashed(photographs[0], tmp_path / "a.png")
    grey = np.asarray(photographs[0].convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=float)
    low = scipy.fft.dctn(grey)[:8, :8].ravel()
    bits = low > np.median(low)
    assert found == sum(int(bit) << (63 - place) for place, bit in enumerate(bits))
    assert bits.sum() == 32


def test_colours_are_not_seen(tmp_path):
    hashes = []
    for colour in ("black", "darkblue"):
        image = Image.new("RGB", (60, 60), "white")
        ImageDraw.Draw(image).ellipse((10, 20, 40, 50), fill=colour)
        hashes.append(hashed(image, tmp_path / "a.png"))
    assert apart(*hashes) <= 4


def test_a_picture_of_one_colour_has_no_hash(tmp_path):
    for colour in ("white", "black", (10, 200, 30)):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "a.png")
        assert hash_picture(tmp_path / "a.png") is None
    # whatever is below transparency
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    noise[..., 3] = 0
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert hash_picture(tmp_path / "a.png") is None


def test_many_in_their_order(photographs, tmp_path):
    names = []
    for i in range(70):  # more than one chunk
        image = photographs[i % 8] if i != 66 else Image.new("RGB", (9, 9))
        image.resize((32 + i, 32)).save(tmp_path / f"{i}.png")
        names.append(f"{i}.png")
    hashes, there = hash_pictures(tmp_path, names)
    assert there.tolist() == [i != 66 for i in range(70)]
    assert hashes.tolist() == [hash_picture(tmp_path / name) or 0 for name in names]
    again = hash_pictures(tmp_path, names, workers=2)
    assert (again[0] == hashes).all()
    assert (again[1] == there).all()
    hashes, there = hash_pictures(tmp_path, [])
    assert (hashes.dtype, len(hashes), len(there)) == (np.uint64, 0, 0)


def test_what_cannot_be_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.png cannot be decoded .*Replace it, or leave out its rows"):
        hash_pictures(tmp_path, ["a.png"])


hashes_of = st.lists(st.integers(0, 2**64 - 1), max_size=20)


@settings(deadline=None, max_examples=60)
@given(hashes_of, hashes_of, st.integers(1, 50))
def test_nearest_equals_the_slow_loop(wanted, known, block):
    place, distance = nearest_hashes(np.array(wanted, np.uint64), np.array(known, np.uint64), block=block)
    for one, at, bits in zip(wanted, place.tolist(), distance.tolist(), strict=True):
        if known:
            expected = min((apart(one, other), i) for i, other in enumerate(known))
            assert (bits, at) == expected
        else:
            assert (bits, at) == (65, -1)
