"""Settings that Kedro reads: hooks, and how configuration is loaded. Kept light, every command imports it.

https://docs.kedro.org/en/stable/configure/ explains each name.
"""

from __future__ import annotations

import os
import sys
import warnings

#: What is set for this process unless the user has set it already. The first group switches off every tool's usage
#: statistics; DO_NOT_TRACK must be the word, some tools do not read "1".
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # MLflow would install its own log handler and set its own level; conf/logging.yml decides instead.
    "MLFLOW_CONFIGURE_LOGGING": "0",
}
if not sys.stderr.isatty():
    # bars of downloads and of loaded weights are for people; in a log file each is one long line of rests
    ENVIRONMENT["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

# Kedro 1.7 calls a function that OmegaConf has renamed, once for each resolver of each command.
warnings.filterwarnings("ignore", message=r"register_new_resolver\(\) is deprecated")

from unime_kedro.catalog import Catalog  # noqa: E402  (the environment comes first)
from unime_kedro.config import environment_variable  # noqa: E402
from unime_kedro.hooks import ParameterCheckHook, SummaryHook  # noqa: E402
from unime_kedro.optional_inputs import OptionalInputsHook  # noqa: E402
from unime_kedro.planning.hook import EstimateHook  # noqa: E402
from unime_kedro.reproduce.work import WorkHook  # noqa: E402
from unime_kedro.run_locks import RunLocksHook  # noqa: E402
from unime_kedro.tracking.hook import TrackingHook  # noqa: E402

_tracking = TrackingHook()
# the last one that wants to be first is: parameters are checked, then files are locked, then all the others are called
_first = RunLocksHook(), ParameterCheckHook()
HOOKS = (*_first, EstimateHook(), OptionalInputsHook(), _tracking, WorkHook(), SummaryHook(_tracking))

# Kedro-Viz would write .viz/ with the times of nodes into the project at every `kedro run`, though MLflow has them
# already; two runs at once would share that folder.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz",)

DATA_CATALOG_CLASS = Catalog

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},
    # soft: an environment replaces the keys it names; Kedro's default replaces whole top-level blocks
    "merge_strategy": {"parameters": "soft", "mlflow": "soft", "globals": "soft"},
    # ${env:NAME,default}: Kedro offers environment variables in credentials only
    "custom_resolvers": {"env": environment_variable},
}
