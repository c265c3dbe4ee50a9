"""The words of ``hybrid send``: what a person types, as the command it means. Sends nothing, judges no bounds.

Bounds and preconditions are the run's to judge (the agent and the engine answer with the reason); here a word only
has to be known, complete and of the right type.
"""

from typing import Any

import msgspec

from trainer_core.spec.commands import MOST_STEPS, Command
from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase


class Verb(msgspec.Struct, frozen=True):
    """One word: the tag of its command, the fields it always has, and the arguments that follow it."""

    word: str
    kind: str
    meaning: str
    arguments: tuple[tuple[str, type], ...] = ()
    optional: bool = False
    """Whether the last argument may be left out."""
    fixed: dict[str, Any] = {}

    @property
    def usage(self) -> str:
        """The word and its arguments, e.g. ``rollback [CHECKPOINT]``."""
        names = [name.upper() for name, _ in self.arguments]
        if self.optional:
            names[-1] = f"[{names[-1]}]"
        return " ".join([self.word, *names])


def _force(phase: Phase, meaning: str) -> Verb:
    return Verb(f"force-{phase.lower()}", "force-phase", meaning, fixed={"phase": phase.value})


VERBS: dict[str, Verb] = {
    verb.word: verb
    for verb in (
        _force(Phase.FULL, "Go to FULL at the next step."),
        _force(Phase.PREDICT, "Go to PREDICT, when its guards allow."),
        _force(Phase.CORRECT, "Go to CORRECT, when its guards allow."),
        Verb("set-threshold", "set-threshold", "Set one live setting.", (("name", str), ("value", float))),
        Verb(
            "rollback",
            "rollback",
            "Go back to a checkpoint, or the last good one. Dangerous.",
            (("checkpoint", str),),
            optional=True,
        ),
        Verb("checkpoint", "checkpoint", "Save a checkpoint."),
        Verb("pause", "pause", "Stop stepping and wait."),
        Verb("resume", "resume", "Go on after a pause."),
        Verb("stop", "stop", "Save a checkpoint and end the run. Dangerous."),
        Verb("set-learning-rate", "set-learning-rate", "Set the learning rate now.", (("value", float),)),
        Verb("scale-learning-rate", "scale-learning-rate", "Multiply the learning rate.", (("factor", float),)),
        Verb("set-gradient-clip", "set-gradient-clip", "Clip the gradient norm; 0: off.", (("max_norm", float),)),
        Verb("set-weight-decay", "set-weight-decay", "Set the weight decay.", (("value", float),)),
        Verb("set-knob", "set-knob", "Set a knob of the script's own.", (("name", str), ("value", float))),
        Verb("set-phase-length", "set-phase-length", "Set a phase's length.", (("phase", str), ("steps", int))),
        Verb("lock", "lock-prediction", "Stay in FULL, predict nothing.", fixed={"locked": True}),
        Verb("unlock", "lock-prediction", "Predict again.", fixed={"locked": False}),
        Verb("acknowledge", "acknowledge-alert", "Somebody has seen the alert.", (("alert_id", str),)),
        Verb("silence", "silence-alert", "Silence a rule for some steps.", (("rule", str), ("steps", int))),
        Verb("annotate", "annotate", "Put a note into the record.", (("text", str),)),
        Verb("remedy", "apply-remedy", "Apply a named remedy. Dangerous.", (("remedy", str),)),
    )
}


def understood(word: str, arguments: list[str]) -> Command:
    """The command that ``word`` and its arguments mean.

    Raises UserError naming the word, what is wrong with it and how it is written.
    """
    verb = VERBS.get(word)
    if verb is None:
        raise UserError(f"{word}: no such command; one of {', '.join(VERBS)}")
    least = len(verb.arguments) - verb.optional
    if not least <= len(arguments) <= len(verb.arguments):
        raise UserError(f"{word}: write {verb.usage}; got {' '.join(arguments) or 'no argument'}")
    fields = dict(verb.fixed)
    for (name, kind), text in zip(verb.arguments, arguments, strict=False):
        fields[name] = _typed(verb, name, kind, text)
    return _command(verb, fields)


def _typed(verb: Verb, name: str, kind: type, text: str) -> Any:
    if name == "phase":
        if text.upper() not in Phase.__members__:
            raise UserError(f"{verb.word}: {text}: PHASE is one of {', '.join(Phase)}")
        return Phase[text.upper()]
    try:
        value = kind(text)
        if kind is int and abs(value) > MOST_STEPS:
            raise ValueError
        return value
    except ValueError:
        wanted = {float: "a number", int: f"a whole number of at most {MOST_STEPS}"}[kind]
        raise UserError(f"{verb.word}: {text}: {name.upper()} is {wanted}") from None


def _command(verb: Verb, fields: dict[str, Any]) -> Command:
    """Made directly: decoding would check the bounds, and it is the run that answers for those."""
    for kind in Command.__args__:
        if kind.__struct_config__.tag == verb.kind:
            made: Command = kind(**fields)
            return made
    raise AssertionError(f"no command has the tag {verb.kind}")
