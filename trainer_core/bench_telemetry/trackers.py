"""Other trackers beside our record: the same forty scalars by their own call, offline. Only what is installed."""

import contextlib
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SCALARS = 40
TENSORBOARD = f"{SCALARS} SummaryWriter.add_scalar"
WANDB = f"one wandb log of {SCALARS} scalars, offline"
TRACKIO = f"one trackio log of {SCALARS} scalars"
_NAMES = tuple(f"signal/{i}" for i in range(SCALARS))


def installed(module: str) -> bool:
    """Whether a package is there."""
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def trackers(folder: Path) -> Iterator[dict[str, Callable[[], None]]]:
    """What each installed tracker does at a step, by what it is called. One that cannot start is told and left out."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, modules, start in (
            (TENSORBOARD, ("torch", "tensorboard"), _tensorboard),
            (WANDB, ("wandb",), _wandb),
            (TRACKIO, ("trackio",), _trackio),
        ):
            if not all(map(installed, modules)):
                continue
            try:
                found[name] = stack.enter_context(start(folder / modules[-1]))
            except Exception as error:  # a stranger's program; whatever it was, the rest can be measured
                print(f"left out: {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        yield found


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer, steps = SummaryWriter(str(folder)), itertools.count(1)

    def add() -> None:
        step = next(steps)
        for name in _NAMES:
            writer.add_scalar(name, 0.5, step)

    yield add
    writer.close()


@contextlib.contextmanager
def _wandb(folder: Path) -> Iterator[Callable[[], None]]:
    import wandb

    folder.mkdir(parents=True)
    with _environment(WANDB_SILENT="true", WANDB_CONSOLE="off", WANDB_DIR=str(folder)):
        run = wandb.init(mode="offline", dir=str(folder), project="bench")
        try:
            yield lambda: run.log(dict.fromkeys(_NAMES, 0.5))
        finally:
            run.finish()


@contextlib.contextmanager
def _trackio(folder: Path) -> Iterator[Callable[[], None]]:
    folder.mkdir(parents=True)
    with _environment(TRACKIO_DIR=str(folder), HF_HUB_OFFLINE="1"), contextlib.redirect_stdout(sys.stderr):
        import trackio

        trackio.init(project="bench")
        try:
            yield lambda: trackio.log(dict.fromkeys(_NAMES, 0.5))
        finally:
            trackio.finish()


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
