"""Which model was it, exactly?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from unime_kedro.mllm.calibration import CALIBRATION_FILE

#: Files of a model folder that cannot change an output. The calibration is applied to the logits afterwards: if it
#: counted, fitting a temperature would throw away every logit in the judge store. The records say when a model was
#: made; the files for sentence-transformers are not read here.
_IRRELEVANT = {
    "README.md",
    ".gitattributes",
    "training_args.bin",
    "pretrain.json",
    "training.json",
    "modules.json",
    "config_sentence_transformers.json",
    "unime_embedding.json",
    "unime_embedding.py",
    CALIBRATION_FILE,
}


def folder_fingerprint(folder: Path) -> str:
    """Return a hash over the names and bytes of a model folder's files (documents left out), 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _IRRELEVANT):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def model_fingerprint(source: str | Path, revision: str | None) -> str:
    """Return the fingerprint of a model folder, or ``<hub id>@<commit>`` of a hub model.

    Args:
        source: A folder, or the id of a hub model whose ``config.json`` was fetched before.
        revision: Hub revision: commit, branch or tag.
    """
    if isinstance(source, Path):
        return folder_fingerprint(source)
    from huggingface_hub import hf_hub_download

    # transformers 5.23 no longer says which commit a model came from; in the cache it is the name of the folder
    return f"{source}@{Path(hf_hub_download(source, 'config.json', revision=revision)).parent.name}"
