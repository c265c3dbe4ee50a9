"""A process that torchrun has started finds its group, its GPU and its seed; in a single process none of it matters.

torchrun says who it is in the environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from trainer_core.engine.distributed import Ranks

T = TypeVar("T")
_FIRST_TIMEOUT_S = 600.0


@contextmanager
def launched() -> Iterator[None]:
    """Join the group that torchrun has started this process for, and leave it again; one that exists is left alone."""
    asked = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if not asked or not dist.is_available() or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=_FIRST_TIMEOUT_S))
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_gpu() -> torch.device:
    """The GPU of this process's own: the one of its number on this machine."""
    local = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local is None or not dist.is_initialized() else f"cuda:{int(local)}")


def set_timeout(seconds: float) -> None:
    """How long a rank waits for the others from now on."""
    if _together():
        dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=seconds))


def seed_rank(seed: int) -> None:
    """Random numbers of this rank's own, after the model was made: the same dropout on all would waste some of it."""
    if _together() and dist.get_rank() > 0:
        torch.manual_seed(seed + 1_000_003 * dist.get_rank())


def as_first(do: Callable[[], T]) -> T:
    """Rank 0 does it, all get what came of it."""
    if not _together():
        return do()
    answer: T = Ranks(torch.device("cpu")).as_first(do)
    return answer


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
