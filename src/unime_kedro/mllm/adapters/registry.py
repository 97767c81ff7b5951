"""Finds the adapter of a model: every module of this package is looked through, nothing has to be listed anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter

_PACKAGE = "unime_kedro.mllm.adapters"


@cache
def families() -> dict[str, type[BackboneAdapter]]:
    """Return the adapter of every known ``model_type``, sorted by it."""
    from unime_kedro.mllm.adapters.base import BackboneAdapter

    found: dict[str, type[BackboneAdapter]] = {}
    for module in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        for value in vars(importlib.import_module(f"{_PACKAGE}.{module.name}")).values():
            # "in vars": what a family inherits from another is not its own
            if isinstance(value, type) and issubclass(value, BackboneAdapter) and "architectures" in vars(value):
                found |= dict.fromkeys(value.architectures, value)
    return dict(sorted(found.items()))


def known() -> str:
    """Return the known architectures as a part of a sentence."""
    return ", ".join(f"{adapter.architectures[kind]} ({kind})" for kind, adapter in families().items())


def why_unknown(model_type: str, architectures: Sequence[str] | None) -> str:
    """Say why no adapter loads a model.

    Args:
        model_type: ``model_type`` of its config.json.
        architectures: ``architectures`` of its config.json, None where there are none.

    Returns:
        The rest of a sentence that begins with "it is"; "" if there is an adapter.
    """
    found = (architectures or ["(no architecture)"])[0]
    adapter = families().get(model_type)
    if adapter is not None and (not architectures or found == adapter.architectures[model_type]):
        return ""
    return (
        f"a {found} (model_type {model_type}); adapters exist for {known()}. A new family is one file in "
        "src/unime_kedro/mllm/adapters/; docs/backbones.md says what belongs into it."
    )
