"""A site with small data in the layouts of the published ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from published_rows import parquet, picture, train_rows
from published_server import Site, serve, zipped

from unime_kedro.fetching.sources import MMEB_TRAIN_REVISION, SOURCES


@pytest.fixture(autouse=True)
def _hub_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """All other tests forbid it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    train: dict[str, bytes] = {"README.md": b"about"}
    for k, name in enumerate(("OK-VQA", "NIGHTS", "WebQA")):
        for split in ("original", "diverse_instruction"):
            train[f"{name}/{split}-00000-of-00001.parquet"] = parquet(train_rows(name, 5 + k))
        pictures = {f"{name}/Train/{i}.jpg": picture(100 * k + i) for i in range(5 + k)}
        train[f"images_zip/{name}.zip"] = zipped(pictures)
    site.repositories["TIGER-Lab/MMEB-train"] = train
    site.commits["TIGER-Lab/MMEB-train"] = MMEB_TRAIN_REVISION
    site.repositories["BeichenZhang/Urban1k"] = {
        "Urban1k.zip": zipped({f"Urban1k/{kind}/1.{end}": b"x" for kind, end in (("image", "jpg"), ("caption", "txt"))})
    }
    site.commits["BeichenZhang/Urban1k"] = "9" * 40
    crepe = SOURCES["sugarcrepe"]
    for part in crepe.parts:
        for there in part.files:
            is_zip = there.endswith(".zip")
            site.web[there] = zipped({"val2017/1.jpg": picture(1)}) if is_zip else b'{"0": {}}'
    with serve(site):
        yield site
