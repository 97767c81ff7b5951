"""What cheaper judging saves and changes, beside exhaustive judging of the same pools.

    unime ablate judging && python benchmarks/bench_strategies.py
    python benchmarks/bench_strategies.py --tokens      # judges the corpus anew by each strategy, with empty stores

Reads the arms of ``unime ablate judging`` and compares each with the exhaustive one: calls, negatives that its judge
would not accept, which and how many are the same, two-sample tests of their ranks and scores, true false negatives (by
the truth of mini-MMEB), and P@1 of the embedders trained on them. Prints a table and JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from unime_kedro.evaluation.two_samples import two_sample_test

PAIR = ["query_id", "item_id"]
CONF = Path(__file__).parents[1] / "conf/base/parameters"


def main() -> None:
    """Read the arms, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=None, help="data root; the project's by default")
    parser.add_argument("--tokens", action="store_true", help="also count what each strategy computes, without a store")
    arguments = parser.parse_args()
    root = arguments.root or _data_root()
    group = json.loads((root / "08_reporting/ablations/judging.json").read_text())
    arms = {arm["arm"]: arm for arm in group["arms"]}
    whole = read_arm(root, group["reference"])
    found = {name: compare(read_arm(root, name), whole) | quality(arm) for name, arm in arms.items()}
    if arguments.tokens:
        for name, figures in judge_anew(root, list(arms)).items():
            found[name] |= figures
    for key in dict.fromkeys(key for figures in found.values() for key in figures):
        print(f"{key:<34}" + "".join(f"{_shown(figures.get(key)):>22}" for figures in found.values()))
    print(json.dumps(found))


def read_arm(root: Path, arm: str) -> dict[str, pl.DataFrame]:
    """Return the tables of an arm; those of all its seeds are the same."""
    folder = root / "ablations/judging" / arm / "seed-1"
    places = {
        "pool": "03_primary/pool.parquet",
        "judge_scores": "03_primary/judge_scores.parquet",
        "judge_coverage": "03_primary/judge_coverage.parquet",
        "negatives": "05_model_input/negatives.parquet",
        "selection": "05_model_input/selection.parquet",
    }
    tables = {name: pl.read_parquet(folder / place) for name, place in places.items()}
    return tables | {"relevance": pl.read_parquet(root / "03_primary/pool_relevance.parquet")}


def compare(arm: dict[str, pl.DataFrame], whole: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """Compare the negatives of an arm with those of exhaustive judging, duplicates and fallbacks left out."""
    queries, pairs = arm["judge_coverage"].height, whole["judge_scores"].height
    calls = int(arm["judge_coverage"]["judged"].sum()) + queries
    sampled, theirs = _sampled(arm, whole), _sampled(whole, whole)
    both = sampled.join(theirs, on=PAIR, how="semi").height
    return {
        "calls per query": calls / queries,
        "fewer calls by": pairs / calls,
        "accepted false negatives": int((sampled["exhaustive_score"] > sampled["threshold"]).sum()),
        "fallback queries": int((arm["selection"]["outcome"] == "fallback").sum()),
        "same as exhaustive": both / theirs.height,
        "mean rank": float(sampled["rank"].mean()),
        "mean score": float(sampled["exhaustive_score"].mean()),
        **_tests("rank", sampled, theirs),
        **_tests("exhaustive_score", sampled, theirs),
        "true false negatives": _true_share(sampled, arm["relevance"]),
    }


def _sampled(arm: dict[str, pl.DataFrame], whole: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Return an arm's negatives with ranks, and scores and thresholds of the exhaustive judge."""
    scores = whole["judge_scores"].filter(~pl.col("is_positive")).select(*PAIR, exhaustive_score="score")
    return (
        arm["negatives"]
        .filter(pl.col("origin") == "sampled")
        .join(whole["pool"].select(*PAIR, "rank"), on=PAIR, how="left")
        .join(scores, on=PAIR, how="left")
        .join(whole["selection"].select("query_id", "threshold"), on="query_id", how="left")
    )


def _tests(column: str, sampled: pl.DataFrame, theirs: pl.DataFrame) -> dict[str, Any]:
    both = set(sampled["query_id"]) & set(theirs["query_id"])
    sets = [one.filter(pl.col("query_id").is_in(both)) for one in (sampled, theirs)]
    samples = [(one[column].to_numpy(), one["query_id"].to_numpy()) for one in sets]
    from scipy.stats import ks_2samp

    name = column.removeprefix("exhaustive_")
    # the textbook's test takes negatives for independent draws, which they are not
    found = {f"{name}: p, textbook": float(ks_2samp(*(values for values, _ in samples), method="asymp").pvalue)}
    for design in ("unpaired", "paired"):
        test = two_sample_test(samples[0], samples[1], design=design, permutations=999)  # type: ignore[arg-type]
        found[f"{name}: distance"] = test.distance
        found[f"{name}: p, {design}"] = test.chance
        found[f"{name}: critical, {design}"] = test.critical
    return found


def _true_share(sampled: pl.DataFrame, relevance: pl.DataFrame) -> float:
    known = sampled.join(relevance.drop_nulls("relevance"), on=PAIR)
    return float((known["relevance"] == 1).mean())


def quality(arm: dict[str, Any]) -> dict[str, Any]:
    """Return P@1 of the arm's embedders, in percent, and its difference to the reference."""
    figures = arm["figures"]["precision_at_1"]
    names = {"mean": "P@1", "deviation": "P@1, deviation", "difference": "P@1, against exhaustive"}
    names |= {f"difference_{end}": f"P@1, against exhaustive, {end}" for end in ("low", "high")}
    return {name: 100 * figures[key] for key, name in names.items() if figures.get(key) is not None}


def judge_anew(root: Path, arms: list[str]) -> dict[str, dict[str, float]]:
    """Judge the corpus by every strategy with an empty store; tokens run, and seconds of judging."""
    import yaml

    from unime_kedro.parameters import JudgeParameters
    from unime_kedro.pipelines.judge.nodes import judge

    tables = {
        name: pl.read_parquet(root / place)
        for name, place in (
            ("queries", "02_intermediate/queries.parquet"),
            ("items", "02_intermediate/items.parquet"),
            ("pool", "03_primary/pool.parquet"),
        )
    }
    origin = json.loads((root / "03_primary/pool_origin.json").read_text())
    shipped = yaml.safe_load((CONF / "judge.yml").read_text())["judge"]
    select = yaml.safe_load((CONF / "select.yml").read_text())["select"]
    selection = {"negatives": select["negatives"], "step": select["step"], "rule": "absolute", "margin": 0.01}
    found = {}
    for arm in arms:
        run = yaml.safe_load((root / "ablations/judging" / arm / "seed-1/run.yml").read_text())
        strategy = shipped["strategy"] | {"selection": selection} | run["run"]["params"]["judge"]["strategy"]
        parameters = JudgeParameters.model_validate(shipped | {"strategy": strategy})
        with tempfile.TemporaryDirectory() as store:
            metrics = judge(
                **tables,
                pool_origin=origin,
                judge=parameters,
                image_root=str(root / "01_raw/mini_mmeb/train"),
                judge_store=Path(store),
            )[-1]
        found[arm] = {
            "tokens run": metrics["run_tokens"],
            "tokens run, small judge": metrics.get("small_run_tokens"),
            "judging seconds": metrics["seconds"],
        }
    return found


def _data_root() -> Path:
    import os

    return Path(os.environ.get("UNIME_DATA_ROOT", Path(__file__).parents[1] / "data"))


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    main()
