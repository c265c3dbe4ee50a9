"""A rank that torchrun starts: trains a few steps, leaves the group, and says which threads and tensors are left."""

import json
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from trainer_core.engine.launching import launched
from trainer_core.run import train


def threads() -> list[str]:
    """Names of this process's threads, those of libraries too."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


@contextmanager
def watched() -> Iterator[list[weakref.ref[Tensor]]]:
    """The tensors of the newest all-gather."""
    found: list[weakref.ref[Tensor]] = []
    original = dist.all_gather

    def all_gather(rows: list[Tensor], own: Tensor) -> object:
        found[:] = [weakref.ref(tensor) for tensor in (own, *rows)]
        return original(rows, own)

    dist.all_gather = all_gather
    yield found
    dist.all_gather = original


def main() -> None:
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    with launched(), watched() as gathered:
        train("digits", steps=4, run_dir=folder / "run")
        within, kept = threads(), [tensor() is not None for tensor in gathered]
    (folder / f"threads-{rank}.json").write_text(json.dumps({"within": within, "kept": kept, "after": threads()}))


if __name__ == "__main__":
    main()
