"""Fetching from a server on this machine: whole or not at all, on from where it was left, checked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from published_server import Site, zipped

from unime_kedro.cli import main
from unime_kedro.errors import ConfigurationError, DataError
from unime_kedro.fetching.command import SOURCE_NAMES
from unime_kedro.fetching.fetch import by_hand, fetch
from unime_kedro.fetching.listing import list_source
from unime_kedro.fetching.sources import MMEB_TRAIN_REVISION, SOURCES
from unime_kedro.io.mmeb import read_pairs

TRAIN = SOURCES["mmeb-train"]
SOME = ["OK-VQA", "NIGHTS"]


def get(site: Site, folder: Path, name: str = "mmeb-train", only: list[str] | None = None, **options: object):
    source = SOURCES[name]
    only = SOME if only is None and name == "mmeb-train" else only or []
    listing = list_source(source, only, endpoint=site.url, web=site.url)
    return fetch(source, listing, folder, pause=0.01, **options)


def test_names_of_the_command_are_those_of_the_sources() -> None:
    assert tuple(SOURCES) == SOURCE_NAMES


def test_data_sets_come_as_ingest_reads_them(site: Site, tmp_path: Path) -> None:
    done = get(site, tmp_path)
    assert (done.new, done.there, done.unpacked) == (4, 0, 5 + 6)
    rows = read_pairs(tmp_path, "original")
    assert rows["dataset"].unique().sort().to_list() == sorted(SOME)
    for path in rows["qry_image_path"]:
        assert (tmp_path / path).is_file(), "where the rows say"
    assert not list(tmp_path.rglob("*.zip")), "archives are not kept"
    assert not list(tmp_path.rglob("diverse_instruction-*")), "nobody asked for it"
    assert not [p for p in tmp_path.rglob("*") if ".part" in p.name or "unpacking" in p.name]
    record = json.loads((tmp_path / "fetched.json").read_text())
    assert record["commits"] == {"TIGER-Lab/MMEB-train": MMEB_TRAIN_REVISION}
    for path, entry in record["files"].items():
        content = site.repositories["TIGER-Lab/MMEB-train"][path]
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert record["files"]["images_zip/NIGHTS.zip"]["unpacked"] == 6


def test_a_second_time_nothing_comes_and_more_can_be_added(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path)
    sent = site.sent.total()
    assert get(site, tmp_path).new == 0
    assert site.sent.total() == sent
    done = get(site, tmp_path, only=[*SOME, "WebQA"])
    assert (done.new, done.there) == (2, 4)
    # kept archives are there, too; a damaged file is seen when it is looked at
    get(site, tmp_path, only=["WebQA"], keep_archives=True)
    file = tmp_path / "WebQA/original-00000-of-00001.parquet"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b"?")
    assert get(site, tmp_path, only=["WebQA"]).new == 0
    assert get(site, tmp_path, only=["WebQA"], verify=True).new == 1
    assert file.read_bytes() == good
    file.unlink()
    assert get(site, tmp_path, only=["WebQA"]).new == 1


def test_a_cut_connection_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.cut["OK-VQA.zip"] = 1000
    get(site, tmp_path, only=["OK-VQA"])
    size = len(site.repositories["TIGER-Lab/MMEB-train"]["images_zip/OK-VQA.zip"])
    assert site.sent["OK-VQA.zip"] == size, "no byte twice"
    assert site.ranges == [f"bytes={n}-" for n in range(1000, size, 1000)]


def test_a_server_without_ranges_is_asked_for_all_again(site: Site, tmp_path: Path) -> None:
    part = tmp_path / "images_zip/OK-VQA.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half of something")
    site.no_ranges = True
    assert get(site, tmp_path, only=["OK-VQA"]).unpacked == 5


def test_a_dead_server_is_given_up_and_what_came_stays(site: Site, tmp_path: Path) -> None:
    site.cut["OK-VQA.zip"] = 0
    with pytest.raises(DataError, match=r"OK-VQA\.zip could not be fetched \(5 tries\)"):
        get(site, tmp_path, only=["OK-VQA"])
    assert (tmp_path / "OK-VQA/original-00000-of-00001.parquet").is_file()
    assert not (tmp_path / "images_zip/OK-VQA.zip").exists()
    site.cut.clear()
    done = get(site, tmp_path, only=["OK-VQA"])
    assert (done.new, done.there) == (1, 1)


def test_wrong_bytes_are_never_put_in_place(site: Site, tmp_path: Path) -> None:
    listing = list_source(TRAIN, ["OK-VQA"], endpoint=site.url)
    path = "OK-VQA/original-00000-of-00001.parquet"
    right = site.repositories["TIGER-Lab/MMEB-train"][path]
    site.repositories["TIGER-Lab/MMEB-train"][path] = right[:-1] + b"?"
    with pytest.raises(DataError, match=r"came damaged: sha256 .*published"):
        fetch(TRAIN, listing, tmp_path, pause=0.01)
    assert [p.name for p in (tmp_path / "OK-VQA").iterdir()] == []
    site.repositories["TIGER-Lab/MMEB-train"][path] = right
    fetch(TRAIN, listing, tmp_path, pause=0.01)
    assert (tmp_path / path).read_bytes() == right


def test_gits_checksum_counts_for_small_files(site: Site, tmp_path: Path) -> None:
    site.repositories["nlphuji/flickr30k"] = {
        "flickr_annotations_30k.csv": b"a,b\n1,2\n",
        "flickr30k-images.zip": zipped({"x/1.jpg": b"1"}),
    }
    site.commits["nlphuji/flickr30k"] = SOURCES["flickr30k"].parts[0].revision
    listing = list_source(SOURCES["flickr30k"], endpoint=site.url)
    assert listing.files[1].blob is not None
    assert listing.files[1].sha256 is None
    site.repositories["nlphuji/flickr30k"]["flickr_annotations_30k.csv"] = b"a,b\n1,3\n"
    with pytest.raises(DataError, match="came damaged: blob"):
        fetch(SOURCES["flickr30k"], listing, tmp_path, pause=0.01)


def test_a_file_that_was_put_there_by_hand_is_checked_and_taken(site: Site, tmp_path: Path) -> None:
    path = "OK-VQA/original-00000-of-00001.parquet"
    (tmp_path / "OK-VQA").mkdir()
    (tmp_path / path).write_bytes(site.repositories["TIGER-Lab/MMEB-train"][path])
    assert get(site, tmp_path, only=["OK-VQA"]).new == 1, "the archive alone"
    assert site.sent["original-00000-of-00001.parquet"] == 0


def test_without_a_known_commit_the_newest_is_taken_and_kept(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path, "urban1k")
    assert (tmp_path / "Urban1k/caption/1.txt").is_file()
    assert json.loads((tmp_path / "fetched.json").read_text())["commits"] == {"BeichenZhang/Urban1k": "9" * 40}
    site.commits["BeichenZhang/Urban1k"] = "8" * 40
    with pytest.raises(DataError, match=r"at 9{40}, 8{40} is asked for.*--revision 9{40}"):
        get(site, tmp_path, "urban1k")


def test_files_without_a_published_checksum_must_stay_what_they_were(site: Site, tmp_path: Path) -> None:
    assert get(site, tmp_path, "sugarcrepe").new == 8
    assert (tmp_path / "val2017/1.jpg").is_file()
    assert len(list((tmp_path / "data").glob("*.json"))) == 7
    (tmp_path / "data/add_att.json").unlink()
    site.web["add_att.json"] = b"{}"
    with pytest.raises(DataError, match=r"add_att\.json has changed since it was first fetched"):
        get(site, tmp_path, "sugarcrepe")


def test_the_token_goes_to_the_hub_alone(site: Site, tmp_path: Path) -> None:
    get(site, tmp_path / "a", only=["OK-VQA"], token="secret")
    get(site, tmp_path / "b", "sugarcrepe", token="secret")
    sent = {path: token for path, token in site.tokens.items() if token}
    assert set(sent.values()) == {"Bearer secret"}
    assert all(path.startswith("/datasets/") for path in sent)


@pytest.mark.parametrize("bad", ["../evil.jpg", "/etc/evil", "a/../../evil"])
def test_an_archive_cannot_write_elsewhere(site: Site, tmp_path: Path, bad: str) -> None:
    site.repositories["TIGER-Lab/MMEB-train"]["images_zip/OK-VQA.zip"] = zipped({"OK-VQA/1.jpg": b"1", bad: b"2"})
    with pytest.raises(DataError, match="lies outside its folder"):
        get(site, tmp_path / "in", only=["OK-VQA"])
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "in/images/OK-VQA").exists()


def test_an_archive_that_does_not_fit_is_told_before(site: Site, tmp_path: Path, monkeypatch) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DataError, match=r"needs .* GiB unpacked, .* has 0\.0 GiB left"):
            get(site, tmp_path, only=["OK-VQA"])
    assert get(site, tmp_path, only=["OK-VQA"]).unpacked == 5
    assert site.sent["OK-VQA.zip"] == len(site.repositories["TIGER-Lab/MMEB-train"]["images_zip/OK-VQA.zip"])


def test_a_killed_fetch_goes_on(site: Site, tmp_path: Path) -> None:
    """SIGKILL in the middle of the archive, and again while it is unpacked."""
    site.cut["OK-VQA.zip"] = 3000
    code = (
        "import sys; from pathlib import Path; from unime_kedro.fetching.fetch import fetch;"
        "from unime_kedro.fetching.listing import list_source; from unime_kedro.fetching.sources import SOURCES;"
        "s = SOURCES['mmeb-train'];"
        "fetch(s, list_source(s, ['OK-VQA'], endpoint=sys.argv[1]), Path(sys.argv[2]), pause=30)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, site.url, str(tmp_path)])
    part = tmp_path / "images_zip/OK-VQA.zip.part"
    for _ in range(600):
        if part.exists() and part.stat().st_size >= 3000:
            break
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    have = part.stat().st_size
    assert have >= 3000
    site.cut.clear()
    # as a kill while unpacking leaves it
    (tmp_path / "images/.unpacking-OK-VQA.zip/OK-VQA").mkdir(parents=True)
    (tmp_path / "images/.unpacking-OK-VQA.zip/OK-VQA/left.jpg").write_bytes(b"half")
    before = site.sent["OK-VQA.zip"]
    get(site, tmp_path, only=["OK-VQA"])
    size = len(site.repositories["TIGER-Lab/MMEB-train"]["images_zip/OK-VQA.zip"])
    assert site.sent["OK-VQA.zip"] - before == size - have
    assert sorted(p.name for p in (tmp_path / "images/OK-VQA/Train").iterdir()) == [f"{i}.jpg" for i in range(5)]
    assert not (tmp_path / "images/.unpacking-OK-VQA.zip").exists()


def test_what_does_not_exist_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mmeb-train has no data set 'OKVQA': A-OKVQA, CIRR"):
        list_source(TRAIN, ["OKVQA"], endpoint=site.url)
    with pytest.raises(ConfigurationError, match="no split 'train': original, diverse_instruction"):
        list_source(TRAIN, split="train", endpoint=site.url)
    with pytest.raises(DataError, match=r"has no file VisDial/original-\*\.parquet"):
        list_source(TRAIN, ["VisDial"], endpoint=site.url)


def test_the_command_and_its_dry_run(site: Site, tmp_path: Path) -> None:
    arguments = ["fetch", "mmeb-train", "--only=OK-VQA", f"--root={tmp_path}", f"--endpoint={site.url}"]
    done = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert f"from TIGER-Lab/MMEB-train at {MMEB_TRAIN_REVISION}" in done.output
    assert "licence: Apache-2.0 as a compilation" in done.output
    assert "2 files, 0.00 GiB" in done.output
    assert list(tmp_path.iterdir()) == []
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "2 files came, 0 were there, 5 came out of archives" in done.output
    assert f"next: unime check-data {tmp_path}" in done.output


def test_without_a_network_the_error_says_what_to_put_where(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["fetch", "mmeb-train", f"--root={tmp_path}", "--endpoint=http://127.0.0.1:9"])
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert "http://127.0.0.1:9 cannot be reached" in done.output
    for words in (
        f"By hand, into {tmp_path}:",
        f"huggingface.co/datasets/TIGER-Lab/MMEB-train/tree/{MMEB_TRAIN_REVISION}",
        "<data set>/original-*.parquet",
        "images_zip/<data set>.zip, unzip into images",
        f"Then: unime check-data {tmp_path}",
    ):
        assert words in done.output


def test_steps_by_hand_for_every_source(tmp_path: Path) -> None:
    for source in SOURCES.values():
        text = by_hand(source, tmp_path)
        assert text.startswith(f"By hand, into {tmp_path}:")
        assert text.endswith(f"Then: unime check-data {tmp_path}")
    crepe = by_hand(SOURCES["sugarcrepe"], tmp_path)
    assert "http://images.cocodataset.org/zips/val2017.zip  ->  val2017.zip, unzip it into ." in crepe
    assert "sugar-crepe/c58a1fce695ee4f9d42ca15b6eeaacd84809416a/data/add_att.json  ->  data/add_att.json" in crepe


def test_by_hand_names_what_only_the_user_can_bring(tmp_path: Path) -> None:
    assert f"{tmp_path}/sam/images/sa_<n>.jpg" in by_hand(SOURCES["sharegpt4v"], tmp_path)
