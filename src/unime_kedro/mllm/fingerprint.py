"""Which model was it, exactly?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from unime_kedro.mllm.calibration import CALIBRATION_FILE

#: Files of a model folder that cannot change an output. The calibration is applied to the logits afterwards: if it
#: counted, fitting a temperature would throw away every logit in the judge store.
_IRRELEVANT = {"README.md", ".gitattributes", "training_args.bin", "pretrain.json", CALIBRATION_FILE}


def folder_fingerprint(folder: Path) -> str:
    """Return a hash over the names and bytes of a model folder's files (documents left out), 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _IRRELEVANT):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def model_fingerprint(source: str | Path, config: Any) -> str:
    """Return the fingerprint of a model folder, or ``<hub id>@<commit>`` of a hub model."""
    if isinstance(source, Path):
        return folder_fingerprint(source)
    return f"{source}@{getattr(config, '_commit_hash', None) or 'unknown'}"
