"""Every kind of bad row, with real files, and which reason wins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unime_kedro.errors import DataError
from unime_kedro.mining import images as images_module
from unime_kedro.mining.images import MANY_IMAGES, MAX_WORKERS, choose_workers, read_images
from unime_kedro.mining.items import build_items

GOOD = {"qry": "q", "qry_image_path": "", "pos_text": "p", "pos_image_path": "", "neg_text": [], "neg_image_path": []}


def noise(size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree of sound and broken images, reached through a symbolic link."""
    home = tmp_path_factory.mktemp("home")
    root = home / "images"
    (root / "sub").mkdir(parents=True)
    noise(32).save(root / "good.png")
    noise(32).save(root / "good.jpg")
    noise(8).convert("P").save(root / "palette.gif")
    Image.new("RGB", (400, 1), "red").save(root / "strip.png")
    Image.new("RGB", (2, 402), "red").save(root / "tall.png")
    Image.new("RGB", (200, 1), "red").save(root / "widest.png")
    for name in ("good.png", "good.jpg"):
        data = (root / name).read_bytes()
        (root / f"truncated_{name}").write_bytes(data[: len(data) * 2 // 3])
    (root / "text.png").write_text("this is no picture")
    (root / "empty.png").write_bytes(b"")
    (root / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    os.mkfifo(root / "pipe.png")
    noise(4).save(home / "outside.png")
    (root / "escape.png").symlink_to(home / "outside.png")
    (root / "escape").symlink_to(home)
    (root / "inside.png").symlink_to(root / "good.png")
    (root / "loop.png").symlink_to("loop.png")
    (home / "link").symlink_to(root)
    return home / "link"


def ingest(root: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    lists = {"neg_text": pl.List(pl.String), "neg_image_path": pl.List(pl.String)}
    columns = {name: [{**GOOD, **row}[name] for row in rows] for name in GOOD}
    frame = pl.DataFrame(columns, schema_overrides=lists)
    origin = {"dataset": pl.lit("D"), "file": pl.lit("D/f.parquet"), "row": pl.int_range(pl.len(), dtype=pl.Int64)}
    return build_items(frame.with_columns(**origin), root, **options)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"qry": None}, "null: qry is null or NaN"),
        ({"pos_image_path": None}, "null: pos_image_path is null or NaN"),
        ({"neg_text": ["a", None], "neg_image_path": ["", ""]}, "null: neg_text holds a null"),
        ({"qry": ""}, "empty_query: neither text nor image"),
        ({"qry": " \n", "qry_image_path": "  "}, "empty_query: neither text nor image"),
        ({"pos_text": ""}, "empty_positive: neither text nor image"),
        ({"qry": "<|image_1|>\n"}, "empty_query: neither text nor image"),
        ({"pos_text": " <|endoftext|><|im_end|>\t"}, "empty_positive: neither text nor image"),
        ({"pos_text": "<|a<|b|>|>"}, "empty_positive: neither text nor image"),
        ({"qry_image_path": "strip.png"}, "image_too_narrow: strip.png (400 x 1, one side more than 200 times"),
        ({"pos_image_path": "tall.png"}, "image_too_narrow: tall.png (2 x 402, one side more than 200 times"),
        ({"qry_image_path": "/etc/hostname"}, "image_outside_root: /etc/hostname (an absolute path)"),
        ({"qry_image_path": "../outside.png"}, "image_outside_root: ../outside.png (a path with ..)"),
        ({"qry_image_path": "sub/../good.png"}, "image_outside_root: sub/../good.png (a path with ..)"),
        ({"qry_image_path": "escape.png"}, "image_outside_root: escape.png (a symbolic link to {home}/outside.png)"),
        ({"pos_image_path": "escape/outside.png"}, "image_outside_root: escape/outside.png (a symbolic link to {home}"),
        ({"pos_image_path": "gone.png"}, "image_missing: gone.png (No such file or directory)"),
        ({"pos_image_path": "sub"}, "image_missing: sub (not a regular file)"),
        ({"pos_image_path": "pipe.png"}, "image_missing: pipe.png (not a regular file)"),
        ({"pos_image_path": "good.png/x"}, "image_missing: good.png/x (Not a directory)"),
        ({"pos_image_path": "x" * 300}, "image_missing: " + "x" * 300 + " (File name too long)"),
        ({"pos_image_path": "a\0b.png"}, "image_missing: a\0b.png ("),
        ({"pos_image_path": "loop.png"}, "image_missing: loop.png (Too many levels of symbolic links)"),
        ({"qry_image_path": "text.png"}, "image_undecodable: text.png (not an image in a known format"),
        ({"qry_image_path": "empty.png"}, "image_undecodable: empty.png (not an image in a known format"),
        ({"qry_image_path": "drawing.eps"}, "image_undecodable: drawing.eps (not an image in a known format"),
        ({"qry_image_path": "truncated_good.jpg"}, "image_undecodable: truncated_good.jpg (OSError: "),
        ({"qry_image_path": "truncated_good.png"}, "image_undecodable: truncated_good.png ("),
        ({"neg_text": ["a"], "neg_image_path": ["gone.png"]}, "image_missing: gone.png (No such file or directory)"),
        ({"neg_text": ["a", "b"], "neg_image_path": [""]}, "unequal_lists: 2 in neg_text, 1 in neg_image_path"),
        ({"neg_text": [], "neg_image_path": ["good.png"]}, "unequal_lists: 0 in neg_text, 1 in neg_image_path"),
    ],
)
def test_bad_rows_are_set_aside_with_their_reason(root: Path, row: dict[str, Any], reason: str) -> None:
    done = ingest(root, [{"qry": "before"}, row, {"qry": "after"}])
    assert done.rejects.select("dataset", "file", "row").rows() == [("D", "D/f.parquet", 1)]
    assert done.rejects["reason"][0].startswith(reason.format(home=root.parent))
    assert done.items["text"].to_list() == ["before", "p", "after"]  # a reject leaves no items behind
    assert done.metrics["rejected/" + reason.split(":")[0]] == 1
    assert done.metrics["reject_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("image", ["good.png", "good.jpg", "palette.gif", "inside.png", "./good.png", "widest.png"])
def test_sound_images_are_accepted(root: Path, image: str) -> None:
    done = ingest(root, [{"qry_image_path": image, "neg_text": ["n", ""], "neg_image_path": ["", image]}])
    assert done.rejects.rows() == []
    assert done.items["modality"].to_list() == ["image_text", "text", "text", "image"]


def test_narrow_pictures_are_found_by_their_header(root: Path) -> None:
    done = ingest(root, [{}, {"pos_image_path": "strip.png"}], check_images="header")
    assert done.rejects["reason"][0].startswith("image_too_narrow: strip.png")


def test_control_tokens_are_no_words_but_may_stand_beside_them_or_an_image(root: Path) -> None:
    texts = ["<|endoftext|>yes", "a <| b", "<|a b|>", "<||>"]
    done = ingest(root, [*({"qry": text} for text in texts), {"qry": "<|image_1|>", "qry_image_path": "good.png"}])
    assert done.rejects.is_empty()
    # a given negative without words is none
    done = ingest(root, [{"neg_text": ["<|endoftext|>", "n"], "neg_image_path": ["", ""]}])
    assert done.items["text"].to_list() == ["q", "p", "n"]


def test_the_first_reason_in_the_fixed_order_wins(root: Path) -> None:
    unequal = {"neg_text": ["a"], "neg_image_path": []}
    bad = {"qry_image_path": "text.png", "pos_image_path": "gone.png", **unequal}
    done = ingest(
        root,
        [
            bad,  # missing before undecodable, although the query comes first
            {**bad, "qry_image_path": "../x"},
            {**bad, "pos_image_path": ""},
            {"qry_image_path": "gone2.png", "pos_image_path": "gone1.png"},  # the same kind twice: the query's
            {**bad, "pos_text": "", "pos_image_path": ""},
            {**bad, "qry": "", "qry_image_path": "", "pos_text": "", "pos_image_path": ""},
            {**bad, "pos_text": None},
            unequal,
        ],
    )
    assert [reason.split(" (")[0] for reason in done.rejects["reason"]] == [
        "image_missing: gone.png",
        "image_outside_root: ../x",
        "image_undecodable: text.png",
        "image_missing: gone2.png",
        "empty_positive: neither text nor image",
        "empty_query: neither text nor image",
        "null: pos_text is null or NaN",
        "unequal_lists: 1 in neg_text, 0 in neg_image_path",
    ]


NOT_TEXT = "wrong_type: {column} is {kind}, expected text"
NOT_TEXTS = NOT_TEXT + " or a list of texts"
NULL = "null: {column} is null or NaN"


@pytest.mark.parametrize(
    ("column", "kind", "values", "reasons"),
    [
        ("qry", "Int64", [1, 2, None], [NOT_TEXT, NOT_TEXT, NULL]),
        ("qry", "Binary", [b"bytes"] * 3, [NOT_TEXT] * 3),
        ("qry", "Null", [None] * 3, [NULL] * 3),
        ("pos_text", "Float64", [0.5, float("nan"), None], [NOT_TEXT, NULL, NULL]),
        ("qry_image_path", "List(String)", [["good.png"]] * 3, [NOT_TEXT] * 3),
        ("pos_image_path", "Struct({'path': String})", [{"path": "good.png"}] * 3, [NOT_TEXT] * 3),
        ("neg_text", "List(Int64)", [[1], [2], [3]], [NOT_TEXTS] * 3),
        ("neg_text", "Int64", [1, 2, 3], [NOT_TEXTS] * 3),
        ("neg_text", "Float64", [float("nan")] * 3, []),  # how pandas writes a column without any values
    ],
)
def test_columns_of_a_wrong_type_are_rejects_and_no_crash(
    root: Path, column: str, kind: str, values: list[Any], reasons: list[str]
) -> None:
    frame = pl.DataFrame(
        {**{name: [value] * 3 for name, value in GOOD.items() if isinstance(value, str)}, column: values}
    )
    frame = frame.with_columns(dataset=pl.lit("D"), file=pl.lit("f"), row=pl.int_range(pl.len(), dtype=pl.Int64))
    assert build_items(frame, root).rejects["reason"].to_list() == [
        reason.format(column=column, kind=kind) for reason in reasons
    ]


def test_text_columns_may_be_categories_and_negatives_arrays(root: Path) -> None:
    frame = pl.DataFrame(
        {"dataset": "D", "file": "f", "row": [0, 1], "qry": ["a", "b"], "qry_image_path": "", "pos_text": "p"}
    )
    frame = frame.with_columns(
        pl.col("qry").cast(pl.Categorical),
        pos_image_path=pl.lit("").cast(pl.Enum([""])),
        neg_text=pl.Series([["n", "m"], ["n", "o"]], dtype=pl.Array(pl.String, 2)),
    )
    done = build_items(frame, root)
    assert done.items["text"].to_list() == ["a", "p", "n", "m", "b", "o"]


def test_header_check_reads_the_header_only(root: Path) -> None:
    rows = [{"qry_image_path": name} for name in ("truncated_good.jpg", "text.png", "good.jpg")]
    assert ingest(root, rows, check_images="full").rejects["row"].to_list() == [0, 1]
    assert ingest(root, rows, check_images="header").rejects["row"].to_list() == [1]


def test_decompression_bombs_are_rejects(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns above this, and refuses twice as much
    done = ingest(root, [{"qry_image_path": "good.png"}, {"qry_image_path": "palette.gif"}])
    assert done.rejects["row"].to_list() == [0]
    assert done.rejects["reason"][0].startswith("image_too_large: good.png (Image size (1024 pixels) exceeds limit")


def test_every_image_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = images_module.read_image
    monkeypatch.setattr(images_module, "read_image", lambda *args: read.append(args[1]) or plain(*args))
    rows = [{"qry_image_path": "good.png", "pos_image_path": "good.jpg"}, {"qry_image_path": "good.jpg"}]
    rows.append({"qry": None, "qry_image_path": "palette.gif"})  # rejected before its image matters
    assert ingest(root, rows).metrics["images_read"] == 2
    assert sorted(read) == ["good.jpg", "good.png"]


def test_few_images_are_read_without_processes() -> None:
    assert choose_workers(MANY_IMAGES - 1) == 1
    assert choose_workers(10**6) == min(len(os.sched_getaffinity(0)), MAX_WORKERS)


def test_a_dead_worker_is_an_error_with_advice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"{i}.png" for i in range(200)]
    monkeypatch.setattr(images_module, "_read_chunk", kill_this_process)
    with pytest.raises(DataError, match=r"process that reads images died.*ingest\.workers to 1"):
        read_images(root, paths, "full", workers=2)


def kill_this_process(root: str, check: str, paths: list[str]) -> list[Any]:
    os.kill(os.getpid(), 9)
    return []
