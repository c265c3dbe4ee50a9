"""Monitor: telemetry, alerts and commands for a training loop of the user's own. Changes nothing in how it trains.

with Monitor("runs/mine", model, optimizer) as monitor:
    for batch in batches:
        loss = train_on(batch)
        monitor.step(loss=loss)
"""

import atexit
import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer_core.engine.knobs import Knob
from trainer_core.engine.own_loop import Optimizer, OwnLoop
from trainer_core.resuming import History, open_run, unfinished_business
from trainer_core.spec.commands import CommandState, SetKnob
from trainer_core.spec.config import Config
from trainer_core.spec.counts import steps_or_none
from trainer_core.spec.errors import ConfigError, RunError, WrongRun, last_word
from trainer_core.spec.loading import as_config, tables_of
from trainer_core.spec.records import (
    AlertResolved,
    Annotated,
    AttemptStarted,
    CheckpointSaved,
    Record,
    RunStarted,
    RunState,
)
from trainer_core.surroundings import watch_system
from trainer_core.telemetry.agent_process import AgentProcess, start_agent
from trainer_core.telemetry.system import SystemWatch
from trainer_core.telemetry.voice import Voice

MEASURED = ("loss", "grad_norm", "param_norm", "update_norm", "learning_rate")
"""Metrics that are fields of a step record: charts and alerts know them. Any other name is a metric of its own."""


class Model(Protocol):
    """What is looked at of a model: how many parameters it has and where they live. Every torch module is one."""

    def parameters(self) -> Iterable[Any]: ...


class RunStopped(Exception):
    """An operator stopped the run: raised by ``Monitor.step``, and swallowed by the end of its ``with`` block."""


class Monitor:
    """Watches one training loop. Everything said goes to ``run_dir``; dashboard and ``hybrid send`` work as usual.

    ``model`` is counted, ``optimizer`` is what learning rate and weight decay commands change, in every group; give the
    ``scheduler`` (torch.optim.lr_scheduler, or a list of them) as well, or it takes a changed rate back.
    ``save(step)`` is called for the command checkpoint and before a stop; it may return a name or path. ``config``:
    sections ``divergence_config`` and ``health`` hold the limits of the alerts. ``resume`` goes on in a directory that
    holds a run, after ``step`` (None: where its record ends). ``serve`` starts the agent that dashboards and
    ``hybrid send`` talk to; ``listen`` (HOST[:PORT]) lets other machines call it, and needs a named key (``hybrid keys
    create``).

    ``pause`` waits inside ``step``; ``stop`` raises RunStopped there, which the ``with`` block swallows. Without a
    ``with`` block call ``close``, and catch RunStopped or look at ``stopped``.

    Raises UserError (ConfigError, RunError) with one sentence for input that cannot be used.
    """

    def __init__(
        self,
        run_dir: str | Path,
        model: Model | None = None,
        optimizer: Optimizer | None = None,
        *,
        scheduler: object = None,
        save: Callable[[int], object] | None = None,
        total_steps: int | None = None,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        task: str = "own loop",
        resume: bool = False,
        step: int | None = None,
        serve: bool = True,
        on_record: Callable[[Record, int], None] | None = None,
        listen: str | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self._voice = Voice(on_record)
        self._closed = False
        step = steps_or_none("step", step, least=0)
        if step is not None and not resume:
            raise ConfigError(f"step = {step}: says where a resumed run goes on, and goes only with resume=True")
        total_steps = steps_or_none("total_steps", total_steps)
        self._loop = OwnLoop(
            as_config(config),
            self._voice.say,
            optimizer=_checked(optimizer),
            scheduler=scheduler,
            save=self._saving(save) if save is not None else None,
            saved=self._saved,
            take_commands=self._voice.take_commands,
            alert_open=self._voice.is_open,
        )
        self._loop.total_steps = total_steps
        history = self._open(resume, listen)
        try:
            self._start(history, step, task, model)
            self._agent = self._start_agent(listen) if serve else None
            self._system = self._watch_system()
        except BaseException:
            self._release()
            raise
        atexit.register(self._close_at_exit)

    # -- training ---------------------------------------------------------------------------------------------------

    def step(self, loss: Any = None, grad_norm: Any = None, *, step: int | None = None, **metrics: Any) -> None:
        """One step was taken: record it, raise alerts, obey commands. Waits here while paused.

        Values are numbers or one-element tensors (reading one on a GPU waits for it); None is "not measured".
        ``param_norm``, ``update_norm`` and ``learning_rate`` (default: the optimizer's) have charts and alerts of their
        own, any other name is a metric. ``step`` numbers it; None counts on.

        Raises RunStopped when an operator stopped the run, RunError once it has ended, ConfigError for no number.
        """
        step = steps_or_none("step", step, least=0)
        if self._loop.ended is not None or self._closed:
            raise RunError(f"the run has ended ({', '.join(self.outcome)}): make a new monitor to go on")
        given = {"loss": loss, "grad_norm": grad_norm, **metrics}
        values = {name: _number("step", name, value) for name, value in given.items() if value is not None}
        measured: dict[str, float | None] = {name: values.pop(name) for name in MEASURED if name in values}
        self._loop.step(step, measured, values)
        if self._loop.ended is not None:
            raise RunStopped(self._loop.ended[1])

    def validated(self, loss: Any, accuracy: Any = None, seconds: float = 0.0) -> None:
        """Held-out loss was measured (and an accuracy in [0, 1]); overfitting alerts look at it."""
        self._refuse_closed()
        self._loop.validated(
            _number("validated", "loss", loss),
            None if accuracy is None else _number("validated", "accuracy", accuracy),
            _number("validated", "seconds", seconds),
        )

    def knob(
        self,
        name: str,
        get: Callable[[], float],
        set: Callable[[float], object],
        *,
        low: float,
        high: float,
        unit: str = "",
        meaning: str = "",
    ) -> None:
        """Offer something to turn: it appears as a command with these bounds, and keeps its value over a restart.

        ``set`` is called between two steps, by the loop's own thread. Raises ConfigError when ``get`` is out of bounds.
        """
        self._refuse_closed()
        self._loop.record(self._loop.knobs.declare(Knob(name, get, set, low, high, unit, meaning), self.step_count))

    def annotate(self, text: str) -> None:
        """Put a note of the program's own into the record."""
        self._refuse_closed()
        self._loop.record(Annotated(self.step_count, str(text)[:2000], "program"))

    def _refuse_closed(self) -> None:
        """What is said after the last word would be lost: raise RunError instead."""
        if self._closed:
            raise RunError(f"the monitor is closed ({', '.join(self.outcome)}): nothing more is recorded")

    def finish(self, because: str = "the training loop said so") -> None:
        """The run has done what it was to do."""
        self._loop.end("finished", because)

    @property
    def stopped(self) -> bool:
        """Whether the run has ended."""
        return self._loop.ended is not None

    @property
    def outcome(self) -> tuple[str, str]:
        """(state, because) of a run that has ended; ("running" or "paused", "") before."""
        return self._loop.ended or ("paused" if self._loop.paused else "running", "")

    @property
    def step_count(self) -> int:
        """The newest step."""
        return self._loop.step_count

    def close(self) -> None:
        """Write how the run ended and release the run directory. The agent lingers for those who still watch."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._close_at_exit)
        try:
            self._system.close()  # before the last word, which is the loop's
            self._loop.close()
        finally:
            self._release()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is not None and not isinstance(error, RunStopped):
            self._loop.end(*last_word(error))
        self.close()
        return isinstance(error, RunStopped)

    def _close_at_exit(self) -> None:
        """A script that ends without ``close`` says how its run ended as the end of a ``with`` block does.

        At a prompt, where the last error may be of any line, it was closed.
        """
        self.__exit__(None, None if hasattr(sys, "ps1") else getattr(sys, "last_value", None), None)

    # -- putting it together ----------------------------------------------------------------------------------------

    def _open(self, resume: bool, listen: str | None) -> History | None:
        """Claim the directory and open the journal; the history of an earlier process when resuming."""
        opened = open_run(self.run_dir, resume, self._goes_on_as, listen)
        self.run_dir, self._lock, self._voice.reporter = opened.run_dir, opened.lock, opened.reporter
        return opened.history

    def _goes_on_as(self, history: History) -> None:
        if not history.own_loop:
            raise WrongRun(f"{self.run_dir} is a run of HybridTrainer: a Monitor cannot go on with it")

    def _start(self, history: History | None, step: int | None, task: str, model: Model | None) -> None:
        loop = self._loop
        if history is None:
            self._voice.say(self._run_started(task, model, None), 0)
            loop.record(RunState(0, "running", "training begins"))
            return
        loop.begin_at(history.step if step is None else step)
        loop.attempt, loop.state_rev = history.attempt + 1, history.state_rev
        loop.backward_passes = history.backward_passes
        checkpoint = next(reversed(history.saved_at), None)
        reached = max(history.step, loop.step_count)
        loop.record(AttemptStarted(loop.step_count, loop.attempt, history.attempt, reached, checkpoint, "resumed"))
        self._voice.say(self._run_started(task, model, checkpoint or "its record"), loop.attempt)
        for alert_id, rule in history.open_alerts:
            loop.record(AlertResolved(loop.step_count, alert_id, rule, "the run was resumed from before it"))
        loop.knobs.load_state_dict(_knobs_of(history))
        unfinished_business(loop.inbox, history, checkpoint)
        loop.record(RunState(loop.step_count, "running", "training goes on"))

    def _run_started(self, task: str, model: Model | None, resumed_from: str | None) -> RunStarted:
        parameters = list(model.parameters()) if model is not None else []
        self._device = next((str(p.device) for p in parameters if hasattr(p, "device")), platform.machine())
        torch = sys.modules.get("torch")
        return RunStarted(
            step=self.step_count,
            run_id=hashlib.sha256(str(self.run_dir.resolve()).encode()).hexdigest()[:12],
            task=task,
            config=tables_of(self._loop.config),
            layers=(),
            parameters=sum(int(p.numel()) for p in parameters if hasattr(p, "numel")),
            total_steps=self._loop.total_steps,
            device=self._device,
            versions={"python": platform.python_version()} | ({"torch": str(torch.__version__)} if torch else {}),
            pid=os.getpid(),
            resumed_from=resumed_from,
            own_loop=True,
        )

    def _saving(self, save: Callable[[int], object]) -> Callable[[int], object]:
        def saving(step: int) -> object:
            """The records of the steps it holds are committed first: going on from it leaves no hole."""
            self._voice.flush()
            return save(step)

        return saving

    def _saved(self, step: int, given: object, because: str, seconds: float) -> str:
        """Record what the loop's function has saved; its name."""
        name = str(given) if isinstance(given, str | Path) and str(given) else f"step-{step:06d}"
        size = 0
        with contextlib.suppress(OSError, ValueError):
            size = Path(name).stat().st_size
        self._loop.record(CheckpointSaved(step, name, size, True, because, seconds))
        return name

    def _start_agent(self, listen: str | None) -> AgentProcess:
        reporter, loop = self._voice.reporter, self._loop
        assert reporter is not None
        return start_agent(
            self.run_dir, queued=lambda: reporter.queued, listen=listen,
            say=lambda record: self._voice.say_of_machine(record, loop.attempt), step=lambda: loop.step_count,
        )  # fmt: skip

    def _watch_system(self) -> SystemWatch:
        loop = self._loop
        return watch_system(
            self.run_dir, self._voice.say_of_machine, loop.all_alarms, step=lambda: loop.step_count,
            attempt=lambda: loop.attempt, config=lambda: loop.config, device=self._device,
        )  # fmt: skip

    def _release(self) -> None:
        self._voice.close()
        agent = getattr(self, "_agent", None)
        if agent is not None:
            agent.close()
        self._lock.close()


def _checked(optimizer: Optimizer | None) -> Optimizer | None:
    if optimizer is None:
        return None
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list) or not groups or "lr" not in groups[0]:
        kind = type(optimizer).__name__
        raise ConfigError(f"optimizer: {kind} has no param_groups with an lr; give one like torch.optim's, or None")
    return optimizer


def _number(method: str, name: str, value: Any) -> float:
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except OverflowError:
        raise ConfigError(f"{method}({name}=...): a whole number of that size is no float; at most 1.8e308") from None
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        what = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
        raise ConfigError(f"{method}({name}=...): must be a number or a one-element tensor, not {what}") from None


def _knobs_of(history: History) -> dict[str, float]:
    """The value every knob was last set to."""
    applied = CommandState.APPLIED
    return {
        accepted.request.command.name: accepted.request.command.value
        for accepted in history.accepted
        if isinstance(accepted.request.command, SetKnob) and history.states.get(accepted.request.command_id) is applied
    }
