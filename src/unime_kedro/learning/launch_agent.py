"""``torchrun`` that ends with whoever started it, and says in a file how each of its processes ended.

``torchrun`` itself prints which process was killed by which signal, as text for people. This is the same program with
that knowledge as data, started as ``python -m unime_kedro.learning.launch_agent <file> <torchrun's arguments>``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from unime_kedro.atomic import atomic_write
from unime_kedro.learning.worker_life import die_with_launcher, launcher_environment


def main(arguments: list[str]) -> int:
    """Run the processes of one machine.

    Args:
        arguments: The file to be written if one of them fails: a JSON list of ``{"rank", "exitcode", "pid", "time"}``
            in the order in which the ends were noticed; then the arguments of ``torchrun``.

    Returns:
        Exit status: 0 if all ended well.
    """
    die_with_launcher()
    # workers get sessions of their own, so they must notice by themselves when this process is killed
    os.environ.update(launcher_environment())
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    file, *rest = arguments
    try:
        run(parse_args(rest))
    except ChildFailedError as error:
        ends = [
            {"rank": rank, "exitcode": end.exitcode, "pid": end.pid, "time": end.timestamp}
            for rank, end in error.failures.items()
        ]
        with atomic_write(Path(file)) as path:
            path.write_text(json.dumps(ends) + "\n", encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
