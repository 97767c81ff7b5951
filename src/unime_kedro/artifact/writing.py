"""The package as a zip file: the same bytes for the same run, and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from unime_kedro.artifact import crate, croissant
from unime_kedro.artifact.gathering import Gathered, gather, project_files, record_files, sha256_of
from unime_kedro.atomic import atomic_write
from unime_kedro.audit.record import RunRecord
from unime_kedro.errors import DataError

MANIFEST, README, ABSENT = "manifest-sha256.txt", "README.md", "absent.json"
#: a home folder of that few parts is a word like /root, which means nothing
_SHORT_HOME = 2


class Exported(NamedTuple):
    """What was written.

    Attributes:
        file: The zip file.
        sha256: Its hash.
        files: How many files are in it.
        runs: How many runs.
        absent: Files of these runs that are not in it -> why.
        telling: Files in it that name places of this machine.
    """

    file: Path
    sha256: str
    files: int
    runs: int
    absent: Mapping[str, str]
    telling: Sequence[str] = ()


def export_artifact(
    run_id: str,
    client: Any,
    root: Path,
    out: Path,
    *,
    with_models: bool = False,
    with_data: bool = True,
    anyway: bool = False,
    force: bool = False,
) -> Exported:
    """Write a run with all that led to it as one zip file.

    Args:
        run_id: The run.
        client: MLflow's client.
        root: The project root.
        out: The file to write.
        with_models: Whether weights are in it, not only their hashes and cards.
        with_data: Whether tables are in it, the mined data set among them.
        anyway: Whether a run that did not come to its end is packed, too.
        force: Whether an existing file is replaced.

    Raises:
        DataError: The file exists, the run did not end well, or its files were changed since.
    """
    if out.exists() and not force:
        raise DataError(f"{out} exists; --force replaces it")
    gathered = gather(run_id, client, root, with_models=with_models, with_data=with_data)
    main = gathered.records[0]
    if main.status != "FINISHED" and not anyway:
        raise DataError(f"run {main.name} ({run_id}) is {main.status}; --anyway packs it all the same")
    return write_package(gathered, root, out)


def write_package(gathered: Gathered, root: Path, out: Path) -> Exported:
    """Write what was gathered, with the project's own files, as one zip file."""
    main = gathered.records[0]
    files = {**project_files(root, main), **gathered.files}
    texts = {**gathered.lists, **texts_of(gathered, files)}
    members = [
        *(crate.Member(name, hashlib.sha256(text).hexdigest(), len(text)) for name, text in texts.items()),
        *(crate.Member(name, sha256_of(file), file.stat().st_size) for name, file in files.items()),
    ]
    texts[crate.FILE] = metadata_of(gathered.records, members)
    hashes = {**{m.path: m.sha256 for m in members}, crate.FILE: hashlib.sha256(texts[crate.FILE]).hexdigest()}
    texts[MANIFEST] = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode("utf-8")
    moment = datetime.fromtimestamp((main.end or main.start) / 1000, UTC)
    with atomic_write(out) as temporary:
        _write(temporary, texts, files, moment)
    telling = _telling(texts, files, root)
    return Exported(out, sha256_of(out), len(texts) + len(files), len(gathered.records), gathered.absent, telling)


def texts_of(gathered: Gathered, files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return what is said in a package about its runs and files, metadata and manifest excepted.

    Args:
        gathered: Runs, lists, and what is not there.
        files: Path in the package -> file, the project's own files among them.
    """
    texts = dict(record_files(gathered.records))
    texts[ABSENT] = (json.dumps(gathered.absent, indent=1, sort_keys=True) + "\n").encode("utf-8")
    texts[README] = readme(gathered, set(files)).encode("utf-8")
    if (described := _described(gathered, files)) is not None:
        texts[croissant.FILE] = croissant.as_bytes(described)
    return texts


def metadata_of(records: Sequence[RunRecord], members: Sequence[crate.Member]) -> bytes:
    """Return the RO-Crate metadata of a package; ``members`` are all its files but these and the manifest."""
    own = any(_own_data(record) for record in records)
    ordered = sorted(members, key=lambda member: member.path)
    document = crate.metadata(records, ordered, f"unime-kedro run {records[0].name}", own)
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _described(gathered: Gathered, files: Mapping[str, Path]) -> dict[str, Any] | None:
    """Return the Croissant description of what the latest run mined."""
    mined = [r for r in gathered.records if any(one.dataset == "negatives" for one in r.side("output"))]
    if not mined:
        return None
    return croissant.describe(mined[0], files, _own_data(mined[0]), _tiny_models(mined[0]))


def _own_data(record: RunRecord) -> bool:
    from unime_kedro.own_data import is_own_data

    return is_own_data(_parameters(record))


def _tiny_models(record: RunRecord) -> bool:
    from unime_kedro.own_data import is_embedded_model

    sections = [_parameters(record).get(name) or {} for name in ("pool", "judge")]
    return all(is_embedded_model(str(section.get("model", ""))) for section in sections)


def _parameters(record: RunRecord) -> Mapping[str, Any]:
    return (record.config or {}).get("parameters") or {}


def _telling(texts: Mapping[str, bytes], files: Mapping[str, Path], root: Path) -> list[str]:
    """Return the files that name the project's folder or the home folder: somebody's pages, patches, parameters."""
    home = Path.home()
    places = {str(root), str(root.resolve()), *([str(home)] if len(home.parts) > _SHORT_HOME else [])}
    needles = [place.encode("utf-8") for place in places]

    def tells(content: bytes) -> bool:
        return any(needle in content for needle in needles)

    found = [name for name, text in texts.items() if tells(text)]
    return sorted(found + [name for name, file in files.items() if not _is_weights(name) and tells(file.read_bytes())])


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pt", ".npy"))


def _write(target: Path, texts: Mapping[str, bytes], files: Mapping[str, Path], moment: datetime) -> None:
    stamp = (max(moment.year, 1980), moment.month, moment.day, moment.hour, moment.minute, moment.second // 2 * 2)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted({*texts, *files}):
            entry = zipfile.ZipInfo(name, stamp)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            if name in texts:
                archive.writestr(entry, texts[name])
                continue
            entry.file_size = files[name].stat().st_size  # above 2 GiB another kind of entry is needed
            with files[name].open("rb") as source, archive.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream)


def readme(gathered: Gathered, files: set[str]) -> str:
    """Return the page that a reviewer opens first."""
    main = gathered.records[0]
    runs = "\n".join(
        f"| {r.name} | `{r.run_id}` | `{r.tags.get('kedro.command', '')}` | {r.commit[:12] or '-'} | {r.status} |"
        for r in gathered.records
    )
    pages = "\n".join(f"- `{name}`" for name in sorted(files) if name.endswith((".html", ".md")))
    changed = "" if main.tags.get("git.dirty") != "true" else f" and apply `runs/{main.run_id}/git.diff`"
    return f"""# {main.name}

A run of unime-kedro with the runs upstream of it. Made by `unime export-artifact`; what the models are is in their
cards below `cards/`. Licences are in `project/NOTICE`.

| run | id | command | commit | ended as |
|---|---|---|---|---|
{runs}

## Read

{pages}
- `runs/<id>/config.yml`: all parameters; `record.json`: metrics, tags, hashes of all files read and written
- `croissant.json`: the mined data set, if it is in here; `{crate.FILE}`: everything, by whom and from what (RO-Crate)
- `absent.json`: files of these runs that are not in here, with why; their hashes are in the records, those of a model's
  files in `sha256.txt` beside its card

## Check

```sh
sha256sum -c {MANIFEST}
unime audit --artifact <this file>     # hashes, configuration, and metrics computed anew from the predictions
```

## Run again

Check out commit `{main.commit or "(unknown)"}` of unime-kedro{changed}, then `make reproduce`, or the commands above,
the lowest first. `runs/<id>/environment.txt` has the packages.
"""
