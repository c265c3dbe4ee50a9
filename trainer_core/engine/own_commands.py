"""What each command does to a loop of the user's own: one arm per kind. Needs no torch, restores no weights.

Commands about phases, predictions and weights are refused with the reason: nobody but the loop itself has them.
"""

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any, assert_never

from trainer_core.engine.answers import BeforeAfter, Failed, Half, Refused
from trainer_core.engine.decay import leading_decay, with_decay
from trainer_core.engine.knobs import set_knob
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.commands import (
    HIGHEST_RATE,
    AcknowledgeAlert,
    Annotate,
    ApplyRemedy,
    Command,
    ForcePhase,
    LockPrediction,
    Pause,
    Resume,
    Rollback,
    SaveCheckpoint,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
    SilenceAlert,
    Stop,
    kind_of,
)
from trainer_core.spec.config import SETTINGS, exact, with_live_setting
from trainer_core.spec.errors import ConfigError
from trainer_core.spec.records import Annotated
from trainer_core.spec.remedies import REMEDIES

if TYPE_CHECKING:
    from trainer_core.engine.own_loop import OwnLoop

_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""Entries of a parameter group that torch's schedulers compute the rate from."""
_SCHEDULED = ("base_lrs", "max_lrs")
"""Rates that a scheduler keeps itself, one for each group."""


def supported(command: Command, loop: "OwnLoop") -> str | None:
    """Why this loop can never carry ``command`` out, or None when it can."""
    match command:
        case ForcePhase() | SetPhaseLength() | LockPrediction():
            return "this run is a loop of its own: it has no phases and no predictions"
        case Rollback():
            return "this run is a loop of its own: its weights are not the monitor's to restore"
        case SetGradientClip():
            return "this run clips gradients by itself, if it does: declare a knob for it (monitor.knob)"
        case SetThreshold(name=name):
            setting = SETTINGS.get(name)
            if setting is not None and setting.section not in LIMIT_SECTIONS:
                return f"{name} has no effect on a loop of its own; the limits of its alerts can be set"
        case SaveCheckpoint() if loop.save is None:
            return "this loop gave its monitor no way to save: Monitor(..., save=function of the step)"
        case SetLearningRate() | ScaleLearningRate() | SetWeightDecay() if loop.optimizer is None:
            return "this loop gave its monitor no optimizer: Monitor(run_dir, model, optimizer)"
        case SetWeightDecay() if not _decaying(loop):
            return "this optimizer has no weight decay"
        case _:
            pass
    return None


def carry_out(command: Command, loop: "OwnLoop", actor: str) -> BeforeAfter:
    """Carry out ``command`` at a boundary. Raises Refused with nothing changed, Failed when the loop's function did."""
    why = supported(command, loop)
    if why is not None:
        raise Refused(why)
    match command:
        case SetThreshold(name=name, value=value):
            return _set(loop, name, value)
        case SetKnob(name=name, value=value):
            return set_knob(loop.knobs, name, value)
        case SaveCheckpoint():
            return None, _save(loop, f"asked for by {actor}")
        case Pause() | Resume():
            before = _running(loop)
            loop.set_paused(isinstance(command, Pause), f"by {actor}")
            return before, _running(loop)
        case Stop():
            before = _running(loop)
            if loop.save is not None:
                _save(loop, f"stopped by {actor}")
            loop.end("stopped", f"stopped by {actor}")
            return before, "stopped"
        case SetLearningRate(value=value):
            rate = loop.learning_rate
            if not rate:
                raise Refused(f"the learning rate is {rate}: no factor makes it another value")
            return _scale(loop, value / rate)
        case ScaleLearningRate(factor=factor):
            return _scale(loop, factor)
        case SetWeightDecay(value=value):
            return _weight_decay(loop, value)
        case AcknowledgeAlert(alert_id=alert_id):
            if not any(alarms.is_open(alert_id) for alarms in loop.all_alarms) and not loop.alert_open(alert_id):
                raise Refused(f"there is no open alert {alert_id}")
            return "open", "acknowledged"
        case SilenceAlert(rule=rule, steps=steps):
            until = loop.step_count + steps
            if not any(alarms.silence(rule, until) for alarms in loop.all_alarms):
                raise Refused(f"there is no alert rule called {rule}")
            return None, f"silent until step {until}"
        case Annotate(text=text):
            loop.record(Annotated(loop.step_count, text, actor))
            return None, text
        case ApplyRemedy(remedy=remedy):
            return _remedy(loop, remedy, actor)
        case ForcePhase() | SetPhaseLength() | LockPrediction() | Rollback() | SetGradientClip():
            raise AssertionError(f"{kind_of(command)} is never supported")
        case _:
            assert_never(command)


def _set(loop: "OwnLoop", name: str, value: float) -> BeforeAfter:
    try:
        changed = with_live_setting(loop.config, name, value)
    except ConfigError as error:
        raise Refused(str(error)) from None
    setting = SETTINGS[name]
    before = getattr(getattr(loop.config, setting.section), setting.name)
    loop.config = changed
    return f"{before:g}", f"{getattr(getattr(changed, setting.section), setting.name):g}"


def _save(loop: "OwnLoop", because: str) -> str:
    """Have the loop save; the name of what it saved."""
    assert loop.save is not None
    start = time.perf_counter()
    try:
        with loop.inbox.busy("the loop was saving"):
            given = loop.save(loop.step_count)
    except Exception as error:  # the user's own function: whatever it raises must not end the run
        raise Failed(f"the loop's save function failed: {type(error).__name__}: {error}") from error
    seconds = time.perf_counter() - start
    return loop.saved(loop.step_count, given, because, seconds) if loop.saved else f"step-{loop.step_count}"


def _scale(loop: "OwnLoop", factor: float) -> BeforeAfter:
    assert loop.optimizer is not None
    before = loop.learning_rate
    if before is None:
        raise Refused("the learning rate lives on a device: reading it would make training wait")
    after = before * factor
    if not math.isfinite(after) or not 0 < after <= HIGHEST_RATE:
        raise Refused(f"a learning rate of {after:g} is outside 0 to {HIGHEST_RATE:g}")
    groups, schedulers = loop.optimizer.param_groups, _schedulers(loop.scheduler)
    old = [(g, key, g[key], float(g[key])) for g in groups for key in _RATES if g.get(key) is not None]
    kept = [(s, name, list(getattr(s, name))) for s in schedulers for name in _SCHEDULED if hasattr(s, name)]
    try:
        for group, key, rate, _ in old:
            group[key] = rate.mul_(factor) if hasattr(rate, "mul_") else rate * factor  # a captured tensor stays it
        for scheduler, name, rates in kept:
            setattr(scheduler, name, [rate * factor for rate in rates])
    except Exception as error:  # the user's own scheduler or optimizer: whatever it raises must not end the run
        for group, key, rate, value in old:
            group[key] = rate.fill_(value) if hasattr(rate, "fill_") else value
        for scheduler, name, rates in kept:
            with contextlib.suppress(Exception):
                setattr(scheduler, name, rates)
        raise Failed(f"the learning rate could not be set: {type(error).__name__}: {error}") from error
    return f"{before:g}", f"{loop.learning_rate:g}"


def _schedulers(scheduler: Any) -> list[Any]:
    """A scheduler, or several in a list, and those inside them, as far as they keep rates to compute from."""
    held = scheduler if isinstance(scheduler, list | tuple) else getattr(scheduler, "_schedulers", ())
    inner = [found for each in held for found in _schedulers(each)]
    return [*inner, *([scheduler] if any(hasattr(scheduler, name) for name in _SCHEDULED) else [])]


def _decaying(loop: "OwnLoop") -> list[dict[str, Any]]:
    return [g for g in loop.optimizer.param_groups if "weight_decay" in g] if loop.optimizer is not None else []


def _weight_decay(loop: "OwnLoop", value: float) -> BeforeAfter:
    high = SETTINGS["weight_decay"].high
    if high is not None and not 0 <= value <= high:
        raise Refused(f"weight_decay = {exact(value)}: must be {SETTINGS['weight_decay'].bounds}")
    groups = _decaying(loop)
    before = leading_decay(groups) or 0.0
    for group in groups:
        group["weight_decay"] = value
    loop.config = with_decay(loop.config, value)
    return f"{before:g}", f"{value:g}"


def _remedy(loop: "OwnLoop", name: str, actor: str) -> BeforeAfter:
    """All of a remedy's commands or none."""
    if name not in REMEDIES:
        raise Refused(f"there is no remedy {name}; there are: {', '.join(REMEDIES)}")
    commands = REMEDIES[name](loop.config)
    if not commands:
        raise Refused(f"the remedy {name} would change nothing: what it sets is at its bound already")
    for command in commands:
        if (why := supported(command, loop)) is not None:
            raise Refused(f"the remedy {name} wants {kind_of(command)}: {why}")
    kept, decays = loop.config, [(group, group["weight_decay"]) for group in _decaying(loop)]
    done = []
    # The learning rate goes last: a refused or failed one has changed nothing.
    for command in sorted(commands, key=lambda c: isinstance(c, SetLearningRate | ScaleLearningRate)):
        try:
            done.append((kind_of(command), *carry_out(command, loop, actor)))
        except (Refused, Failed) as error:
            loop.config = kept
            for group, decay in decays:
                group["weight_decay"] = decay
            raise Half(command, error).whole from error
    was = "; ".join(f"{kind} {before}" for kind, before, _ in done)
    return was, "; ".join(f"{kind} -> {after}" for kind, _, after in done)


def _running(loop: "OwnLoop") -> str:
    return "paused" if loop.paused else "running"
