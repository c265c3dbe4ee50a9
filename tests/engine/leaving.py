"""A rank that torchrun starts: trains a few steps, leaves the group, and says which threads the process has left."""

import json
import os
import sys
from pathlib import Path

from trainer_core.engine.launching import launched
from trainer_core.run import train


def threads() -> list[str]:
    """Names of this process's threads, those of libraries too."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


def main() -> None:
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    with launched():
        train("digits", steps=4, run_dir=folder / "run")
        within = threads()
    (folder / f"threads-{rank}.json").write_text(json.dumps({"within": within, "after": threads()}))


if __name__ == "__main__":
    main()
