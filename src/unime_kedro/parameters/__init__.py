"""Typed parameters of every pipeline.

One model per top-level key of ``conf/*/parameters/*.yml``. Unknown keys, wrong types and values out of range are
errors before anything runs (see :mod:`unime_kedro.config`).
"""

from __future__ import annotations

from unime_kedro.parameters.base import Count, LoadingParameters, ModelParameters, Parameters
from unime_kedro.parameters.evaluating import (
    BenchmarkSource,
    EvaluatedModel,
    EvaluateParameters,
    LeakageParameters,
    RerankingParameters,
)
from unime_kedro.parameters.mining import (
    DemoParameters,
    FilterParameters,
    IndexParameters,
    IngestParameters,
    JudgeParameters,
    PoolParameters,
    PretrainParameters,
    SelectParameters,
    StrategyParameters,
    TinyModelParameters,
)
from unime_kedro.parameters.reporting import JudgeCardParameters, ReportParameters
from unime_kedro.parameters.reranking import RerankParameters, RerankValidationParameters
from unime_kedro.parameters.training import (
    DistributedParameters,
    LoraParameters,
    LossParameters,
    TrainingParameters,
    TrainParameters,
    ValidationParameters,
)

#: top-level key of the parameters -> its model
SECTIONS: dict[str, type[Parameters]] = {
    "demo": DemoParameters,
    "ingest": IngestParameters,
    "pool": PoolParameters,
    "judge": JudgeParameters,
    "select": SelectParameters,
    "train": TrainParameters,
    "rerank": RerankParameters,
    "evaluate": EvaluateParameters,
    "judge_card": JudgeCardParameters,
    "report": ReportParameters,
    "pretrain": PretrainParameters,
}

__all__ = [
    "SECTIONS",
    "BenchmarkSource",
    "Count",
    "DemoParameters",
    "DistributedParameters",
    "EvaluateParameters",
    "EvaluatedModel",
    "FilterParameters",
    "IndexParameters",
    "IngestParameters",
    "JudgeCardParameters",
    "JudgeParameters",
    "LeakageParameters",
    "LoadingParameters",
    "LoraParameters",
    "LossParameters",
    "ModelParameters",
    "Parameters",
    "PoolParameters",
    "PretrainParameters",
    "ReportParameters",
    "RerankParameters",
    "RerankValidationParameters",
    "RerankingParameters",
    "SelectParameters",
    "StrategyParameters",
    "TinyModelParameters",
    "TrainParameters",
    "TrainingParameters",
    "ValidationParameters",
]
