"""Who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unime_kedro"

#: room -> other rooms it may import; everybody may import errors, paths, progress
ALLOWED = {
    "minimmeb": set(),
    "mllm": set(),
    "cluster": {"mining", "mllm"},
    "io": {"mining"},
    "mining": {"mllm"},
    "learning": {"mllm", "minimmeb", "evaluation"},
    "evaluation": {"mllm", "mining", "io", "minimmeb"},
    "quality": set(),
    "tracking": {"quality", "io", "settings"},
    "reporting": {"evaluation", "io"},
    "ablations": {"tracking", "evaluation", "io", "mining", "mllm", "own_data"},
    "fetching": {"command_errors", "evaluation", "io", "mining", "notebook", "settings"},
    "exchange": {"command_errors", "failures", "mining", "mllm", "notebook", "run_locks", "settings", "tracking"},
    "audit": {"ablations", "artifact", "command_errors", "evaluation", "minimmeb", "settings", "tracking"},
    "artifact": {"audit", "command_errors", "evaluation", "io", "own_data", "settings", "tracking"},
    "planning": {
        "ablations",
        "command_errors",
        "evaluation",
        "io",
        "learning",
        "minimmeb",
        "mining",
        "mllm",
        "own_data",
        "pipelines",
        "settings",
    },
    "reproduce": {"ablations", "command_errors", "io", "optional_inputs", "settings", "tracking"},
}
SHARED = {"atomic", "config", "errors", "imports", "parameters", "paths", "processes", "progress"}
NO_FRAMEWORK = {"cluster", "minimmeb", "mllm", "mining", "learning", "evaluation", "reporting"}
FRAMEWORKS = {"kedro", "mlflow", "dvc", "great_expectations"}
TORCH = {"torch", "transformers", "peft", "accelerate"}


def imports(file: Path) -> set[str]:
    """Every module a file imports anywhere, at the top or inside functions, type checking blocks included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_the_rooms_they_may(room):
    for file in (SOURCE / room).rglob("*.py"):
        for name in imports(file):
            if name.startswith("unime_kedro."):
                other = name.split(".")[1]
                assert other in ALLOWED[room] | SHARED | {room, "__version__"}, f"{file} imports {name}"


@pytest.mark.parametrize("room", sorted(NO_FRAMEWORK))
def test_libraries_know_nothing_of_the_framework(room):
    for file in (SOURCE / room).rglob("*.py"):
        heads = {name.split(".")[0] for name in imports(file)}
        assert not heads & FRAMEWORKS, f"{file} imports {heads & FRAMEWORKS}"


def test_torch_lives_in_mllm_and_learning_alone():
    for file in SOURCE.rglob("*.py"):
        room = file.relative_to(SOURCE).parts[0]
        if room not in ("mllm", "learning"):
            heads = {name.split(".")[0] for name in imports(file)}
            assert not heads & TORCH, f"{file} imports {heads & TORCH}"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_naming_the_pipelines_loads_nothing_heavy():
    loaded = loaded_by("from unime_kedro.pipeline_registry import register_pipelines; register_pipelines()")
    heavy = {"torch", "transformers", "faiss", "mlflow", "great_expectations", "pandas", "matplotlib", "ray"}
    assert not loaded & heavy


def test_the_libraries_load_without_kedro_and_torch_until_needed():
    loaded = loaded_by(
        "import unime_kedro.mining.judging, unime_kedro.mining.retrieval, unime_kedro.mining.selection, "
        "unime_kedro.mining.items, unime_kedro.evaluation.truth, unime_kedro.mllm.judge, unime_kedro.minimmeb.corpus, "
        "unime_kedro.cluster.judging, unime_kedro.cluster.embedding"
    )
    assert not loaded & {"kedro", "torch", "transformers", "faiss", "mlflow", "great_expectations", "pandas", "ray"}
