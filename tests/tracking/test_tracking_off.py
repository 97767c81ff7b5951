"""Without tracking nothing heavy is imported."""

from __future__ import annotations

from toy_project import Project

HEAVY = {"mlflow", "pandas", "matplotlib", "torch", "transformers", "great_expectations", "faiss", "sqlalchemy"}


def test_switched_off_by_variable_imports_nothing_heavy_and_writes_no_store(bare_project: Project) -> None:
    output, modules = bare_project.kedro_modules("run", "--pipeline=mine", UNIME_TRACKING="off")
    assert not modules & HEAVY
    assert not (bare_project.root / "mlflow.db").exists()
    assert (bare_project.root / "data/negatives.parquet").is_file()  # it did run
    assert "MLflow" not in output


def test_switched_off_by_file(bare_project: Project) -> None:
    bare_project.write("conf/base/mlflow.yml", "tracking:\n  enabled: false\n")
    _, modules = bare_project.kedro_modules("run", "--pipeline=mine")
    assert not modules & HEAVY
