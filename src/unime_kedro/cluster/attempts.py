"""What was in a worker's hands when it died: so that nothing kills workers for ever."""

from __future__ import annotations

from typing import Any

#: answer of :meth:`Attempts.begin` for what is done
DONE = -1


class Attempts:
    """Counts, for the whole cluster, how often something was begun and not finished.

    An actor of Ray's without resources of its own. If its machine dies it starts again and knows nothing: then a little
    more is tried again, and nothing else goes wrong.
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def begin(self, key: str) -> int:
        """Note that ``key`` is in hand now; returns how many workers died with it, or :data:`DONE`."""
        before = self._begun.get(key, 0)
        if before != DONE:
            self._begun[key] = before + 1
        return before

    def done(self, key: str) -> None:
        """Note that ``key`` is finished."""
        self._begun[key] = DONE


def start_attempts() -> Any:
    """Return a handle of a new :class:`Attempts` on the cluster; it ends with the last handle."""
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()


def begin(attempts: Any, key: str) -> int:
    """Call :meth:`Attempts.begin` of a handle, and wait for the answer."""
    import ray

    return ray.get(attempts.begin.remote(key))


def done(attempts: Any, key: str) -> None:
    """Call :meth:`Attempts.done` of a handle, and wait until it is noted."""
    import ray

    ray.get(attempts.done.remote(key))
