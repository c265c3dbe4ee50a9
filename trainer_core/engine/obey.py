"""What each command does to a run: one arm per kind, returning what was before and after. Checks before it changes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from trainer_core.engine import looking
from trainer_core.engine.answers import BeforeAfter, Failed, Half, Refused
from trainer_core.engine.decay import leading_decay, with_decay
from trainer_core.engine.knobs import set_knob
from trainer_core.engine.lengths import OF_FULL
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
from trainer_core.spec.errors import CheckpointError, ConfigError
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import Annotated
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.slots import LENGTH_OF
from trainer_core.spec.transitions import Decision, refusal, row_for

if TYPE_CHECKING:
    from trainer_core.engine.session import Session


def apply(command: Command, session: "Session", actor: str) -> BeforeAfter:
    """Carry out ``command`` at a boundary. Raises Refused with nothing changed."""
    engine = session.engine
    match command:
        case ForcePhase(phase=phase):
            return _force(session, phase)
        case SetThreshold(name=name, value=value):
            return _set(session, name, value)
        case SetPhaseLength(phase=phase, steps=steps):
            return _set(session, LENGTH_OF[phase], float(steps))
        case SetGradientClip(max_norm=max_norm):
            return _set(session, "gradient_clip_norm", max_norm)
        case SetKnob(name=name, value=value):
            return set_knob(session.knobs, name, value)
        case Rollback(checkpoint=name):
            return _roll_back(session, name, actor)
        case SaveCheckpoint():
            return None, session.save_checkpoint(f"asked for by {actor}").name
        case Pause() | Resume():
            before = _running(session)
            session.set_paused(isinstance(command, Pause), f"by {actor}")
            return before, _running(session)
        case Stop():
            before = _running(session)
            session.stop(f"stopped by {actor}")
            return before, "stopped"
        case SetLearningRate(value=value):
            planned = engine.schedule.planned(engine.step_count + 1)
            if planned <= 0:
                raise Refused("the schedule's learning rate is 0 at this step: no scale makes it another value")
            return _scale(session, value / planned)
        case ScaleLearningRate(factor=factor):
            return _scale(session, engine.schedule.scale * factor)
        case SetWeightDecay(value=value):
            return _weight_decay(session, value)
        case LockPrediction(locked=locked):
            before_lock, engine.locked = engine.locked, locked
            return _lock(before_lock), _lock(locked)
        case AcknowledgeAlert(alert_id=alert_id):
            own = any(alarms.is_open(alert_id) for alarms in engine.recorder.all_alarms)
            if not _known(session, own or session.alert_open(alert_id)):
                raise Refused(f"there is no open alert {alert_id}")
            return "open", "acknowledged"
        case SilenceAlert(rule=rule, steps=steps):
            until = engine.step_count + steps
            if not _known(session, any(alarms.silence(rule, until) for alarms in engine.recorder.all_alarms)):
                raise Refused(f"there is no alert rule called {rule}")
            return None, f"silent until step {engine.step_count + steps}"
        case Annotate(text=text):
            engine.record(Annotated(engine.step_count, text, actor))
            return None, text
        case ApplyRemedy(remedy=remedy):
            return _remedy(session, remedy, actor)
        case _:
            assert_never(command)


def _known(session: "Session", here: bool) -> bool:
    """Rank 0's answer: it alone watches the machine, so it alone knows every alert."""
    ranks = session.engine.ranks
    return here if ranks is None else bool(ranks.as_first(lambda: here))


def _force(session: "Session", phase: Phase) -> BeforeAfter:
    engine = session.engine
    before = engine.phase
    if phase is before is Phase.PREDICT:
        raise Refused("a prediction is under way; force FULL to end it")
    if phase is before:
        engine.steps_in_phase = 0
        if phase is Phase.FULL:
            engine.probe_at = engine.full_needed
        return before.value, f"{phase} (begun anew)"
    why = refusal(before, phase, engine.signals(), engine.config)
    if why is not None:
        raise Refused(why)
    if phase is Phase.CORRECT and engine.last_batch is None:
        raise Refused("a correction needs a batch to be tested on: ask again after the next step")
    if phase is Phase.PREDICT:
        if engine.last_batch is None or engine.steps_left < 2:
            raise Refused("a prediction needs a batch to be probed on and at least two steps left")
        engine.progress.forget()
        looking.look(engine, engine.last_batch)
        if engine.proposed is None:
            raise Refused("the predictor has nothing to propose yet")
    row = row_for(before, phase)
    engine.enter(Decision(row, ("asked for by an operator",)), engine.last_batch)
    return before.value, engine.phase.value


def _set(session: "Session", name: str, value: float) -> BeforeAfter:
    engine = session.engine
    try:
        changed = with_live_setting(engine.config, name, value)
    except ConfigError as error:
        raise Refused(str(error)) from None
    setting = SETTINGS[name]
    before = getattr(getattr(engine.config, setting.section), setting.name)
    engine.config = changed
    if setting.name in OF_FULL and engine.phase is Phase.FULL:
        engine.probe_at = engine.full_needed
    if setting.name == "confidence_threshold" and value < before:
        engine.lengths.look_again(changed)
        engine.budget.wanted()
        engine.progress.forget()
        if engine.phase is Phase.FULL:
            engine.probe_at = min(engine.probe_at, engine.full_needed)
    return f"{before:g}", f"{getattr(getattr(changed, setting.section), setting.name):g}"


def _roll_back(session: "Session", name: str | None, actor: str) -> BeforeAfter:
    before = f"step {session.engine.step_count}"
    try:
        entry = session.roll_back(name, f"rolled back by {actor}")
    except CheckpointError as error:
        raise Refused(str(error)) from None
    return before, f"step {entry.step} ({entry.name})"


def _scale(session: "Session", scale: float) -> BeforeAfter:
    engine = session.engine
    planned = engine.schedule.planned(engine.step_count + 1)
    if not math.isfinite(scale) or not 0 < planned * scale <= HIGHEST_RATE:
        raise Refused(f"a learning rate of {planned * scale:g} is outside 0 to {HIGHEST_RATE:g}")
    before = planned * engine.schedule.scale
    engine.schedule.scale = scale
    return f"{before:g}", f"{engine.schedule.apply(engine.step_count + 1):g}"


def _weight_decay(session: "Session", value: float) -> BeforeAfter:
    engine = session.engine
    groups = [g for g in engine.optimizer.param_groups if "weight_decay" in g]
    high = SETTINGS["weight_decay"].high
    before = leading_decay(groups)
    if before is None:
        raise Refused("this optimizer has no weight decay")
    if high is not None and not 0 <= value <= high:
        raise Refused(f"weight_decay = {exact(value)}: must be {SETTINGS['weight_decay'].bounds}")
    for group in groups:
        group["weight_decay"] = value
    engine.config = with_decay(engine.config, value)
    return f"{before:g}", f"{value:g}"


def _remedy(session: "Session", name: str, actor: str) -> BeforeAfter:
    """All of a remedy's commands or none."""
    if name not in REMEDIES:
        raise Refused(f"there is no remedy {name}; there are: {', '.join(REMEDIES)}")
    commands = REMEDIES[name](session.engine.config)
    if not commands:
        raise Refused(f"the remedy {name} would change nothing: what it sets is at its bound already")
    try:
        done = all_or_nothing(commands, session, actor)
    except Half as half:
        raise half.whole from half
    was = "; ".join(f"{kind_of(command)} {before}" for command, (before, _) in done)
    return was, "; ".join(f"{kind_of(command)} -> {after}" for command, (_, after) in done)


def all_or_nothing(commands: Sequence[Command], session: "Session", actor: str) -> list[tuple[Command, BeforeAfter]]:
    """Carry out settings and at most one rollback, which goes last: only it cannot be put back.

    Raises Half when one does not succeed; then everything is as it was.
    """
    engine = session.engine
    kept = engine.config, engine.schedule.scale, engine.probe_at
    decays = [group.get("weight_decay") for group in engine.optimizer.param_groups]
    done = []
    for command in sorted(commands, key=lambda c: isinstance(c, Rollback)):
        try:
            done.append((command, apply(command, session, actor)))
        except (Refused, Failed, OSError) as error:
            engine.config, engine.schedule.scale, engine.probe_at = kept
            for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
                if decay is not None:
                    group["weight_decay"] = decay
            engine.schedule.apply(engine.step_count + 1)
            raise Half(command, error) from error
    return done


def _running(session: "Session") -> str:
    return "paused" if session.paused else "running"


def _lock(locked: bool) -> str:
    return "locked" if locked else "unlocked"
