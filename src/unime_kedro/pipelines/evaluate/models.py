"""Which models are evaluated, and what they make of the benchmarks; what was computed before is not computed again."""

import json
import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from unime_kedro.errors import ConfigurationError, ModelError
from unime_kedro.evaluation.result_store import Result, read_result, result_key, tasks_digest, write_result
from unime_kedro.evaluation.scoring import Scored, contents_of, score_tasks
from unime_kedro.mining.images import ProgressFactory
from unime_kedro.own_data import is_embedded_model
from unime_kedro.parameters import EvaluatedModel, EvaluateParameters
from unime_kedro.paths import resolve
from unime_kedro.pipelines.evaluate.benchmarks import Loaded

if TYPE_CHECKING:
    from unime_kedro.evaluation.benchmarks import LoadedBenchmark
    from unime_kedro.mllm.embedding import Embedder
    from unime_kedro.mllm.reranker import Reranker

log = logging.getLogger(__name__)

#: end of a folder that a pipeline of ours writes -> the pipeline
_OWN_OUTPUTS = {("06_models", "trained"): "train", ("06_models", "reranker"): "rerank"}
#: first candidates that are kept at least: what the measures look at
_TOP = 10
#: raise when the same parameters give other results than before
_VERSION = 1


class Evaluated(NamedTuple):
    """A model on all benchmarks.

    Attributes:
        facts: Which model, which reranker, how long it took, what was cut.
        scored: Benchmark -> its queries; behind a reranker, as they are after it, and ``top`` has
            ``reranked_position``.
    """

    facts: dict[str, Any]
    scored: dict[str, Scored]


def check_models(evaluate: EvaluateParameters) -> dict[str, EvaluatedModel]:
    """Return the models that can be evaluated, in their order: all but those that a pipeline of ours has to make yet.

    Raises:
        ConfigurationError: If there is none.
        ModelError: If one is not there that no pipeline of ours would make.
    """
    from unime_kedro.mllm.adapters import local_or_hub

    named = {name: model for name, model in evaluate.models.items() if model is not None}
    found = {name: model for name, model in named.items() if _waits_for(model) is None}
    for name, model in found.items():
        for key in ("model", "reranker"):
            try:
                if value := getattr(model, key):
                    local_or_hub(value)
            except ModelError as error:
                raise ModelError(f"evaluate.models.{name}.{key}: {error}") from error
    if not found:
        _warn_of_waiting(evaluate)
        raise ConfigurationError(
            "evaluate.models: there is no model to evaluate. Name one, such as "
            "--params=evaluate.models.mine.model=path/or/hub-id"
        )
    return found


def _waits_for(model: EvaluatedModel) -> tuple[Path, str] | None:
    """Return the empty folder and the pipeline of ours that fills it, None if the model waits for nothing."""
    for value in filter(None, (model.model, model.reranker)):
        folder = resolve(value)
        pipeline = _OWN_OUTPUTS.get((folder.parent.name, folder.name))
        if pipeline and not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            return folder, pipeline
    return None


def _warn_of_waiting(evaluate: EvaluateParameters) -> None:
    for name, model in evaluate.models.items():
        if model is not None and (waits := _waits_for(model)):
            log.warning("%s is left out: no model in %s; kedro run --pipeline=%s makes it", name, *waits)


def evaluate_models(
    benchmarks: Loaded, evaluate: EvaluateParameters, folder: Path, progress: ProgressFactory
) -> dict[str, Evaluated]:
    """Score every model that is there on every benchmark, the same embedder behind several names once."""
    _warn_of_waiting(evaluate)
    digests = {name: tasks_digest(one.tasks, one.image_root, progress) for name, one in benchmarks.items()}
    return {
        name: _Evaluation(name, model, evaluate, folder, progress).run(benchmarks, digests)
        for name, model in check_models(evaluate).items()
    }


class _Evaluation:
    """One model; its weights are loaded when something has to be computed, and not before."""

    def __init__(
        self, name: str, model: EvaluatedModel, evaluate: EvaluateParameters, folder: Path, progress: ProgressFactory
    ) -> None:
        from unime_kedro.mllm.adapters import fingerprint_of

        self.name, self.model, self.parameters = name, model, evaluate
        self.folder, self.progress = folder, progress
        self.fingerprint = fingerprint_of(model.model, model.revision)
        self.reranker_fingerprint = fingerprint_of(model.reranker, model.reranker_revision) if model.reranker else None
        self.top = max(_TOP, evaluate.reranking.top)
        self.per_benchmark: dict[str, dict[str, Any]] = {}

    def run(self, benchmarks: Loaded, digests: dict[str, str]) -> Evaluated:
        """Score all benchmarks."""
        scored = {name: self._benchmark(name, one, digests[name]) for name, one in benchmarks.items()}
        base = _base_model(self.model.model)
        facts = {
            "folder": self.model.model,
            "base_model": base,
            # tiny, trained on synthetic drawings: whatever shows the figures says so
            "embedded": any(is_embedded_model(one) for one in (self.model.model, base) if one),
            "revision": self.model.revision,
            "fingerprint": self.fingerprint,
            "reranker": self.model.reranker,
            "reranker_fingerprint": self.reranker_fingerprint,
            **self.per_benchmark,
        }
        return Evaluated(facts, scored)

    def _benchmark(self, name: str, loaded: "LoadedBenchmark", digest: str) -> Scored:
        embedding = self._embedding_key(digest)
        kept = self._kept(name, embedding, ("predictions", "top"), lambda: self._score(loaded))
        self._note(name, **{key: kept.record[key] for key in ("seconds", "contents", "truncated")})
        scored = Scored(kept.tables["predictions"], kept.tables["top"])
        if self.model.reranker is None:
            return scored
        from unime_kedro.evaluation.reranking import predictions_after

        key = result_key({"embedding": embedding, "reranker": self._reranker_identity()})
        kept = self._kept(name, key, ("reranked",), lambda: self._rerank(loaded, scored.top))
        self._note(name, reranking=kept.record["counts"])
        reranked = kept.tables["reranked"]
        places = reranked.select("dataset", "query_id", "position", "reranked_position")
        top = scored.top.join(places, on=["dataset", "query_id", "position"], how="left", maintain_order="left")
        return Scored(predictions_after(scored.predictions, reranked), top)

    def _note(self, benchmark: str, **facts: Any) -> None:
        for key, value in facts.items():
            self.per_benchmark.setdefault(key, {})[benchmark] = value

    def _kept(self, benchmark: str, key: str, tables: tuple[str, ...], compute: Callable[[], Result]) -> Result:
        """Return what was computed before, else compute and keep it."""
        found = read_result(self.folder, key, tables)
        if found is not None:
            done = "reranked" if tables == ("reranked",) else "scored"
            log.info(
                "%s on %s: %s before with the same model, data and parameters (%s); nothing is computed",
                *(self.name, benchmark, done, key),
            )
            return found
        start = time.perf_counter()
        result = compute()
        result.record["seconds"] = round(time.perf_counter() - start, 3)
        write_result(self.folder, key, result)
        return result

    def _embedding_key(self, digest: str) -> str:
        p = self.parameters
        return result_key(
            {
                "version": _VERSION,
                "model": self.fingerprint,
                "benchmark": digest,
                "precision": _precision(p),
                "top": self.top,
                **{key: getattr(p, key) for key in ("min_pixels", "max_pixels", "prompt", "max_tokens")},
            }
        )

    def _reranker_identity(self) -> dict[str, Any]:
        p = self.parameters
        settings = p.reranking.model_dump(exclude={"batch_tokens"})
        limits = {key: getattr(p, key) for key in ("min_pixels", "max_pixels")}
        return {"model": self.reranker_fingerprint, "precision": _precision(p), **limits, **settings}

    def _score(self, loaded: "LoadedBenchmark") -> Result:
        from unime_kedro.evaluation.encoding import contents_to_embed

        before = self._embedder.truncated
        contents = contents_to_embed(contents_of(loaded.tasks), loaded.image_root)
        self._embedder.expect(contents)
        log.info("%s on %s: %s distinct contents", self.name, loaded.benchmark.name, f"{len(contents):,}")
        found = score_tasks(loaded.tasks, self._embedder.embed, loaded.image_root, top=self.top, progress=self.progress)
        cut = self._embedder.truncated - before
        if cut:
            log.warning(
                "%s on %s: %d contents are longer than evaluate.max_tokens", self.name, loaded.benchmark.name, cut
            )
        record = {"contents": len(contents), "truncated": cut, "embedder": self._embedder.identity()}
        return Result(found._asdict(), record)

    def _rerank(self, loaded: "LoadedBenchmark", top: pl.DataFrame) -> Result:
        from unime_kedro.evaluation.reranking import rerank_top

        settings = self.parameters.reranking
        queries = [
            one.queries.select(pl.lit(one.dataset).alias("dataset"), "query_id", "content_id") for one in loaded.tasks
        ]
        contents = [
            one.contents.select(pl.lit(one.dataset).alias("dataset"), "content_id", "text", "image")
            for one in loaded.tasks
        ]
        reranked, counts = rerank_top(
            top.filter(pl.col("position") < settings.top),
            pl.concat(queries),
            pl.concat(contents),
            self._reranker,
            loaded.image_root,
            method=settings.method,
            decoding=settings.decoding,
            progress=self.progress,
        )
        return Result({"reranked": reranked}, {"counts": counts})

    @cached_property
    def _embedder(self) -> "Embedder":
        from unime_kedro.mllm.adapters import load_adapter
        from unime_kedro.mllm.embedding import Embedder

        p = self.parameters
        return Embedder(
            load_adapter(_spec(p, self.model.model, self.model.revision)),
            prompt=p.prompt,
            max_tokens=p.max_tokens,
            batch_tokens=p.batch_tokens,
            workers=p.image_workers,
        )

    @cached_property
    def _reranker(self) -> "Reranker":
        from unime_kedro.mllm.adapters import load_adapter
        from unime_kedro.mllm.reranker import Reranker

        p = self.parameters
        assert self.model.reranker is not None
        return Reranker(
            load_adapter(_spec(p, self.model.reranker, self.model.reranker_revision)),
            max_tokens=p.reranking.max_tokens,
            batch_tokens=p.reranking.batch_tokens,
            workers=p.image_workers,
        )


def _base_model(model: str) -> str | None:
    """Return what a model of ours was trained from, as its record says; None for others."""
    try:
        record = json.loads((resolve(model) / "training.json").read_text(encoding="utf-8"))
        return str(record["base"]["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _spec(p: EvaluateParameters, model: str, revision: str | None) -> Any:
    from unime_kedro.mllm.content import ModelSpec

    return ModelSpec(model, revision, p.device, p.dtype, p.min_pixels, p.max_pixels, p.threads)


def _precision(p: EvaluateParameters) -> str:
    """Return the numbers' type, which results depend on; that of ``auto`` depends on the machine."""
    if p.dtype != "auto":
        return p.dtype
    if p.device == "auto":
        from unime_kedro.learning.hardware import count_gpus

        return "bfloat16" if count_gpus() else "float32"
    return "bfloat16" if p.device == "cuda" else "float32"
