"""The random numbers of torch (CPU and CUDA), Python and numpy as one state. Knows nothing of what draws them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch


def random_state() -> dict[str, Any]:
    """The state of all four, loadable without pickle."""
    kind, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": list(random.getstate()[1]),
        "gauss": random.getstate()[2],
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
    }


def drawn(device: torch.device) -> tuple[bytes, ...]:
    """What changes whenever torch draws a random number on the host or on ``device``. Waits for nothing."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(state.numpy().tobytes() for state in states)


def draw_again(device: torch.device, states: tuple[bytes, ...]) -> None:
    """Let torch go on from what ``drawn`` gave."""
    host, *others = (torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in states)
    torch.set_rng_state(host)
    for state in others:
        torch.cuda.set_rng_state(state, device)


@contextmanager
def the_same(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws the numbers of ``seed``; outside, its random numbers go on as if nothing had been."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``random_state`` gave."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    random.setstate((3, tuple(state["python"]), state.get("gauss")))  # of earlier versions, without it
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
