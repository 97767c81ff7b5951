"""What is printed of an audit."""

from __future__ import annotations

import json

import pytest
from hand_made import a_record

from unime_kedro.audit.findings import FAIL, NOTE, PASS, SKIP, Finding
from unime_kedro.audit.table import as_json, as_text

FINDINGS = [
    Finding("run", "train", PASS, "FINISHED"),
    Finding("files", "output pool", FAIL, "pool.parquet has other bytes", "give the run's command again"),
    Finding("files", "input items", PASS, "the recorded bytes"),
    Finding("files", "output negatives", PASS, "the recorded bytes"),
    Finding("files", "output selection", PASS, "the recorded bytes"),
    Finding("files", "raw files", PASS, "mini_mmeb has the recorded digest"),
    Finding("lineage", "input params:evaluate.models.reranked-by-the-judge.model", PASS, "written by run mine (1)"),
    Finding("environment", "packages", NOTE, "2 differ: " + "torch==2.9 " * 12, "pip install -r environment.txt"),
    Finding("metrics", "others", SKIP, "no file"),
]


def test_the_table_at_80_columns() -> None:
    record = a_record(tags={"kedro.command": "kedro run --env=smoke --pipeline=train"})
    assert (
        as_text(record, FINDINGS, 80)
        == """\
audit of train (abababababababababababababababab)
  kedro run --env=smoke --pipeline=train

run
  pass  train                       FINISHED

files
  pass  1 input                     have the recorded bytes: items
  pass  2 outputs                   have the recorded bytes: negatives,
                                    selection
  pass  raw files                   mini_mmeb has the recorded digest
  FAIL  output pool                 pool.parquet has other bytes

lineage
  pass  input params:evaluate.models.reranked-by-the-judge.model
                                    written by run mine (1)

environment
  note  packages                    2 differ: torch==2.9 torch==2.9 torch==2.9
                                    torch==2.9 torch==2.9 torch==2.9 torch==2.9
                                    torch==2.9 torch==2.9 torch==2.9 torch==2.9
                                    torch==2.9

metrics
  skip  others                      no file

what to do
  note  environment, packages: pip install -r environment.txt
  FAIL  files, output pool: give the run's command again

NOT in order: 6 passed, 1 failed, 1 note, 1 not looked at."""
    )


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, as_text(a_record(), FINDINGS, width).splitlines())) <= min(width, 140)


def test_json_has_every_finding() -> None:
    document = json.loads(as_json(a_record(), FINDINGS))
    assert (document["run_id"], document["passed"], len(document["findings"])) == ("ab" * 16, False, 9)
    assert document["findings"][1] == FINDINGS[1]._asdict()
    assert json.loads(as_json(a_record(), FINDINGS[:1]))["passed"]
