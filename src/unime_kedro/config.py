"""Checks the parameters before anything runs, and says in plain words what is wrong and where it is set."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unime_kedro.errors import ConfigurationError

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader
    from pydantic import BaseModel

KeyPath = tuple[str | int, ...]

#: what to call the values given on the command line
RUNTIME = "--params"


def environment_variable(name: str, default: str | None = None) -> str | None:
    """Return an environment variable; the ``env`` resolver of the configuration, ``${env:NAME,default}``.

    A variable that is set but empty counts as not set, so that ``UNIME_DATA_ROOT= kedro run`` does not put the data
    into the root of the file system.
    """
    return os.environ.get(name) or default


def data_root(config_loader: AbstractConfigLoader, project_path: str | Path) -> Path:
    """Return the folder that holds the data: ``data_root`` of ``globals.yml``, relative to the project root."""
    from kedro.config import MissingConfigException

    try:
        place = config_loader["globals"].get("data_root")
    except (MissingConfigException, KeyError):
        place = None
    return Path(project_path) / (place or environment_variable("UNIME_DATA_ROOT", "data") or "")


def check_parameters(
    raw: Mapping[str, Any],
    conf_source: str | Path,
    env: str | None = None,
    runtime_params: Mapping[str, Any] | None = None,
) -> None:
    """Check all parameters of all pipelines against :data:`unime_kedro.parameters.SECTIONS`.

    Args:
        raw: The parameters as the configuration loader gives them, merged and resolved.
        conf_source: Folder of the environments, to name the file that sets a faulty value.
        env: The environment on top of ``base``; None for ``local``.
        runtime_params: The values of ``--params``, nested.

    Raises:
        ConfigurationError: Lists every fault: dotted key, value, what is expected, and which file and line sets it.
    """
    from unime_kedro.parameters import SECTIONS

    sources = Sources(conf_source, env, runtime_params, "parameters")
    faults = [_missing_section(name, sources) for name in SECTIONS if name not in raw]
    # in the order of the sections: that of `raw` changes from run to run, Kedro reads the files in a set's order
    for name, model in SECTIONS.items():
        if name in raw:
            faults += model_faults(model, raw[name], sources, (name,))
    for name in sorted(map(str, set(raw) - set(SECTIONS))):
        if not name.startswith("_"):  # "_" marks a block that is only there to be referred to
            known = ", ".join(SECTIONS)
            faults.append(f"{name}: unknown section{_did_you_mean(name, SECTIONS, known)}{sources.where((name,))}")
    raise_faults(faults, "parameters")


def fill_in(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked parameters with what null stands for in its place.

    A node may take a single key (``params:ingest.image_root``), which Kedro hands over as the files have it; the typed
    section alone would know what is meant.
    """
    from unime_kedro.parameters import IngestParameters

    ingest = IngestParameters.model_validate(raw["ingest"])
    filled = {**raw, "ingest": {**raw["ingest"], "image_root": ingest.image_root}}
    if "strategy" in raw.get("judge", {}):
        filled["judge"] = {**raw["judge"], "strategy": _strategy(raw)}
    return filled


def _strategy(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``judge.strategy``; a judge that is asked no more than needed must know what ``select`` will take."""
    from unime_kedro.parameters import SelectParameters

    strategy = dict(raw["judge"]["strategy"])
    if strategy["kind"] != "exhaustive" and strategy["selection"] is None:
        select = SelectParameters.model_validate(raw["select"])
        strategy["selection"] = {
            "negatives": select.negatives,
            "step": select.step,
            "rule": select.filter.rule,
            "margin": select.filter.effective_margin,
        }
    return strategy


def raise_faults(faults: Sequence[str], what: str) -> None:
    """Raise one ConfigurationError that lists ``faults``, if there are any."""
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigurationError("\n  ".join([f"{count} in the {what}, nothing was run:", *faults]))


def model_faults(model: type[BaseModel], values: Any, sources: Sources, prefix: KeyPath = ()) -> list[str]:
    """Return one line for every way in which ``values`` do not fit ``model``; empty when they do.

    Args:
        model: A pydantic model without unknown keys.
        values: What the configuration holds for it.
        sources: Where values come from.
        prefix: Where in the configuration ``values`` stand.
    """
    from pydantic import ValidationError

    try:
        model.model_validate(values)
    except ValidationError as error:
        return [_fault(model, dict(item), sources, prefix) for item in error.errors(include_url=False)]
    return []


def _fault(model: type[BaseModel], item: dict[str, Any], sources: Sources, prefix: KeyPath) -> str:
    """Describe one of pydantic's errors in a line."""
    location = tuple(part for part in item["loc"] if part != "[key]")
    path = (*prefix, *location)
    dotted = ".".join(map(str, path))
    if item["type"] == "missing":
        block = ".".join(map(str, path[:-1])) or "the top level"
        file = sources.file(path[:-1])
        place = f" in {file}" if file else ""
        return f"{dotted}: missing, it has no default; add `{path[-1]}:` under `{block}:`{place}"
    shown = f"{dotted} = {_show(item['input'])}"
    if item["type"] == "extra_forbidden":
        known = list(_fields_at(model, location[:-1]))
        hint = _did_you_mean(str(path[-1]), known, ", ".join(known), ".".join(map(str, path[:-1])))
        return f"{shown}: unknown key{hint}{sources.where(path)}"
    return f"{shown}: {_expectation(item)}{sources.where(path)}"


def _missing_section(name: str, sources: Sources) -> str:
    return f"{name}: missing, the whole section; add `{name}:` in {sources.base / 'parameters' / name}.yml"


def _did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any], listed: str, block: str = "") -> str:
    """Return ``; did you mean X?`` with the nearest known key, or the list of those there are."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {block + '.' if block else ''}{near[0]}?"
    return f"; known here: {listed}" if listed else ""


def _fields_at(model: type[BaseModel], path: KeyPath) -> Iterator[str]:
    """Yield the names of the fields of the (nested) model at ``path``."""
    from pydantic import BaseModel

    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return
        model = field.annotation
    yield from model.model_fields


def _show(value: Any, limit: int = 80) -> str:
    """Return a value as one would write it in YAML, shortened."""
    import json

    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= limit else text[: limit - 1] + "…"


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _expectation(item: dict[str, Any]) -> str:
    """Say what a value should have been, from one of pydantic's errors."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _EXPECTED:
        got = _text_for_number(item)
        return f"expected {_EXPECTED[kind]}{got}"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"expected {words} {context[key]}"
    if kind == "literal_error":
        return f"expected one of {context['expected'].replace(' or ', ', ')}"
    if kind == "string_too_short":
        least = context["min_length"]
        return "expected text that is not empty" if least == 1 else f"expected text of {least} or more characters"
    return str(item["msg"])


def _text_for_number(item: dict[str, Any]) -> str:
    """Say why what looks like a number is none, "" where it does not."""
    text = item["input"]
    if item["type"] not in ("int_type", "float_type") or not isinstance(text, str):
        return ""
    try:
        float(text)
    except ValueError:
        return ""
    mantissa, e, exponent = text.lower().partition("e")
    if e and "." not in mantissa:  # YAML 1.1 wants the point
        return f" (YAML takes {text} for text, write {mantissa}.0e{exponent})"
    return " (it is text, remove the quotes)"


class Sources:
    """Finds the file and line that sets a key: ``--params``, then the environment's files, then those of ``base``.

    Files are read only when asked, that is, when there is a fault to report.
    """

    def __init__(
        self,
        conf_source: str | Path,
        env: str | None,
        runtime_params: Mapping[str, Any] | None,
        kind: str,
    ) -> None:
        self._conf, self._kind = Path(conf_source), kind
        self._env = env or "local"
        self._runtime = dict(runtime_params or {})
        self.base = self._shorten(self._conf / "base")

    def where(self, path: KeyPath) -> str:
        """Return where ``path`` is set, for the end of a message: ``" [conf/base/parameters/judge.yml, line 3]"``."""
        if _holds(self._runtime, path):
            return f" [{RUNTIME}]"
        file, line = self._locate(path)
        return f" [{file}, line {line}]" if file else ""

    def file(self, path: KeyPath) -> str | None:
        """Return the file that sets ``path``, the base environment's first: where a missing key belongs."""
        for folder in ("base", self._env):
            for file in self._files(folder):
                if _line_of(file, path) is not None:
                    return str(self._shorten(file))
        return None

    def _locate(self, path: KeyPath) -> tuple[str | None, int]:
        for folder in (self._env, "base"):
            for file in self._files(folder):
                line = _line_of(file, path)
                if line is not None:
                    return str(self._shorten(file)), line
        return None, 0

    def _files(self, folder: str) -> list[Path]:
        """Return the environment's files of this kind, by Kedro's patterns."""
        root = self._conf / folder
        found = (file for file in root.rglob("*") if file.suffix in (".yml", ".yaml", ".json") and file.is_file())
        return sorted(f for f in found if any(part.startswith(self._kind) for part in f.relative_to(root).parts))

    def _shorten(self, file: Path) -> Path:
        """Return ``file`` relative to the folder that holds the configuration, as a user would type it."""
        parent = self._conf.parent
        return file.relative_to(parent) if file.is_relative_to(parent) else file


def _holds(values: Any, path: KeyPath) -> bool:
    for part in path:
        is_key = isinstance(values, Mapping) and part in values
        if not is_key and not (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            return False
        values = values[part]
    return True


def _line_of(file: Path, path: KeyPath) -> int | None:
    """Return the line (from 1) on which a YAML file sets ``path``, None if it does not."""
    import yaml

    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in node.value}
            if str(part) not in keys:
                return None
            key, node = keys[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return None
    return line
