"""What a command sets, one name for one thing: of two that wait for the same thing the newer supersedes the older.

Knows no run. A relative change (``ScaleLearningRate``) has no slot: it builds on whatever holds then.
"""

from trainer_core.spec.commands import (
    Command,
    LockPrediction,
    Pause,
    Resume,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.config import SETTINGS
from trainer_core.spec.phases import Phase

LENGTH_OF: dict[Phase, str] = {
    Phase.WARMUP: "warmup_steps",
    Phase.FULL: "full_steps",
    Phase.PREDICT: "max_predict_steps",
    Phase.CORRECT: "correct_steps",
}
"""The setting that holds a phase's length."""


def slot_of(command: Command) -> str | None:
    """The thing whose value a command sets; None for a one-shot and for a relative change."""
    match command:
        case SetThreshold(name=name):
            return _setting(name)
        case SetPhaseLength(phase=phase):
            return _setting(LENGTH_OF[phase])
        case SetGradientClip():
            return _setting("gradient_clip_norm")
        case SetWeightDecay():
            return _setting("weight_decay")
        case SetLearningRate():
            return "the learning rate"
        case SetKnob(name=name):
            return f"the knob {name}"
        case LockPrediction():
            return "the lock"
        case Pause() | Resume():
            return "the pause"
        case _:
            return None


def _setting(name: str) -> str:
    setting = SETTINGS.get(name)
    return f"{setting.section}.{setting.name}" if setting is not None else name
