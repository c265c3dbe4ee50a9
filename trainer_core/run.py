"""Composition root: task + optimizer + HybridTrainer -> one run. The one file that knows every floor."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import msgspec
import torch

from trainer_core.engine.launching import as_first, launched, own_gpu, seed_rank, set_timeout
from trainer_core.hybrid_trainer import HybridTrainer
from trainer_core.learning.optimizers import make_optimizer
from trainer_core.spec.config import Config
from trainer_core.spec.errors import ConfigError, TrainingFailed, UserError, WrongRun
from trainer_core.spec.loading import Loaded, Tables, load, placed, read_toml
from trainer_core.spec.records import Record
from trainer_core.tasks import Task, make_task, task_defaults
from trainer_core.telemetry.rundir import dated

OnRecord = Callable[[Record, int], None]


class RunResult(msgspec.Struct, frozen=True):
    """How a run ended."""

    state: str
    """finished, stopped or failed."""
    step: int
    run_dir: Path
    because: str
    rank: int = 0
    """Which of the processes that train together this was."""


def train(
    task: str,
    *,
    config_file: Path | None = None,
    preset: str | None = None,
    overrides: Mapping[str, str] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    data: Path | None = None,
    on_record: OnRecord | None = None,
    on_start: Callable[[Path, Loaded], None] | None = None,
    plain: bool = False,
    baseline: Path | None = None,
    listen: str | None = None,
) -> RunResult:
    """Train a task to its end, an operator's stop, or a signal (SIGINT, SIGTERM, SIGHUP stop with a checkpoint).

    ``resume`` goes on in ``run_dir`` with the configuration stored there, under the overrides given now. ``plain``
    locks prediction from the start; ``baseline`` is such a run, to be compared with. ``listen`` (HOST[:PORT])
    lets other machines call the run's agent.
    Raises UserError for anything a person can mend.
    """
    if resume and run_dir is None:
        raise UserError("say which run to resume: --resume needs --run-dir DIR")
    overrides = dict(overrides or {})
    if steps is not None:
        overrides["max_steps"] = str(steps)
    if seed is not None:
        overrides["seed"] = str(seed)
    with launched():
        loaded = _configuration(task, config_file, preset, overrides, run_dir if resume else None)
        loaded = _with_folder(loaded, data)
        return _train(task, loaded, run_dir, resume, on_record, on_start, plain, baseline, listen)


def _train(
    task: str,
    loaded: Loaded,
    run_dir: Path | None,
    resume: bool,
    on_record: OnRecord | None,
    on_start: Callable[[Path, Loaded], None] | None,
    plain: bool,
    baseline: Path | None,
    listen: str | None,
) -> RunResult:
    config = loaded.config
    set_timeout(config.training.rank_timeout)
    device = choose_device(config)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    torch.manual_seed(config.training.seed)
    folder = config.dataset.folder
    work = make_task(task, config, None if folder is None else Path(folder), device)
    model = work.model().to(device)
    seed_rank(config.training.seed)
    name = getattr(work, "name", task)
    measure = getattr(work, "validate", None)
    directory = run_dir if run_dir is not None else Path("runs") / dated(re.sub(r"[^\w.+-]+", "-", name))
    early: list[str] = []
    with _signals(early.append):  # who dies here leaves a directory that holds a run and no checkpoint
        trainer = HybridTrainer(
            model,
            make_optimizer(config, model),
            work.loss,
            config,
            directory,
            total_steps=config.training.max_steps,
            validate=(lambda: measure(model)) if measure is not None else None,
            resume=resume,
            task=name,
            on_record=on_record,
            plain=plain,
            baseline=baseline,
            listen=listen,
        )
    with trainer:
        if early:
            trainer.stop_soon(f"stopped by {early[0]}")
        if on_start is not None and trainer.rank == 0:
            on_start(directory, msgspec.structs.replace(loaded, notes=loaded.notes + trainer.baseline_notes))
        _loop(trainer, work)
        state, because = trainer.outcome
    return RunResult(state, trainer.step_count, trainer.run_dir, because, trainer.rank)


def _loop(trainer: HybridTrainer, work: Task) -> None:
    with _signals(lambda name: trainer.stop_soon(f"stopped by {name}")):
        while not trainer.stopped and trainer.engine.steps_left > 0:
            try:
                trainer.step(work.batch(trainer.engine.batches * trainer.world_size + trainer.rank))
            except TrainingFailed:
                return
        if not trainer.stopped:
            trainer.finish(f"all {trainer.engine.total_steps} steps taken")


def _configuration(
    task: str, config_file: Path | None, preset: str | None, overrides: Mapping[str, str], stored: Path | None
) -> Loaded:
    if stored is None:
        return load(config_file, preset, overrides, task_defaults(task))
    if config_file is not None or preset is not None:
        raise ConfigError("a resumed run keeps its own configuration: use --set to change single settings")
    return load(None, None, overrides, as_first(lambda: _stored(stored)))


def _with_folder(loaded: Loaded, data: Path | None) -> Loaded:
    """With the folder of the data from the root on, so that a run reads the same wherever it is resumed from."""
    folder = data if data is not None else loaded.config.dataset.folder
    if folder is None:
        return loaded
    place = str(Path(folder).absolute())
    try:
        place.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(place).decode(errors="backslashreplace")
        raise ConfigError(
            f"data folder {shown}: its path is not UTF-8, which the configuration is; choose another"
        ) from None
    dataset = msgspec.structs.replace(loaded.config.dataset, folder=place)
    return msgspec.structs.replace(loaded, config=msgspec.structs.replace(loaded.config, dataset=dataset))


def _stored(run_dir: Path) -> Tables:
    file = run_dir / "config.toml"
    if not file.exists():
        raise WrongRun(f"{run_dir} holds no run to resume: there is no config.toml")
    try:
        return placed({k: v for k, v in read_toml(file).items() if isinstance(v, dict)}, [])
    except ConfigError as error:  # somebody has edited it
        named = str(error).startswith(f"{file}: ")
        raise (error if named else ConfigError(f"{file}: {error}")) from None


def choose_device(config: Config) -> torch.device:
    """The device the configuration asks for. Raises ConfigError when it is not there."""
    wanted = config.training.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("[training] device = 'cuda': this machine has no CUDA device; use 'cpu' or 'auto'")
    return own_gpu() if wanted != "cpu" and torch.cuda.is_available() else torch.device("cpu")


@contextlib.contextmanager
def _signals(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass the first of SIGINT, SIGTERM and SIGHUP on instead of dying of it; a second SIGINT interrupts at once.

    A SIGHUP that is ignored (``nohup``) stays ignored. Main thread only.
    """
    asked: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)
        tell(asked[0])

    taken = [signal.SIGINT, signal.SIGTERM]
    taken += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else []
    before = {s: signal.signal(s, note) for s in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
