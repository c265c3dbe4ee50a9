"""Every word of ``hybrid send`` is a command, and every wrong one says how it is written."""

import pytest

from trainer_core.cli.verbs import VERBS, understood
from trainer_core.spec.commands import Command, ForcePhase, LockPrediction, Rollback, SetThreshold
from trainer_core.spec.commands import kind_of as tag_of
from trainer_core.spec.errors import UserError
from trainer_core.spec.phases import Phase

EXAMPLES = {str: "FULL", float: "0.5", int: "7"}


@pytest.mark.parametrize("word", VERBS)
def test_every_word_means_a_command_of_its_kind(word: str) -> None:
    verb = VERBS[word]
    meant = understood(word, [EXAMPLES[kind] for _, kind in verb.arguments])
    assert isinstance(meant, Command)
    assert tag_of(meant) == verb.kind


def test_every_kind_of_command_has_a_word() -> None:
    assert {verb.kind for verb in VERBS.values()} == {kind.__struct_config__.tag for kind in Command.__args__}


def test_arguments_arrive_typed() -> None:
    assert understood("force-full", []) == ForcePhase(Phase.FULL)
    assert understood("set-threshold", ["confidence_threshold", "0.9"]) == SetThreshold("confidence_threshold", 0.9)
    assert understood("rollback", []) == Rollback(None)
    assert understood("rollback", ["step-5"]) == Rollback("step-5")
    assert understood("unlock", []) == LockPrediction(False)


@pytest.mark.parametrize(
    ("word", "arguments", "says"),
    [
        ("forcefull", [], "forcefull: no such command; one of force-full,"),
        ("set-threshold", ["x"], "set-threshold: write set-threshold NAME VALUE; got x"),
        ("set-threshold", ["x", "high"], "set-threshold: high: VALUE is a number"),
        ("pause", ["now"], "pause: write pause; got now"),
        ("rollback", ["a", "b"], "rollback: write rollback [CHECKPOINT]; got a b"),
        ("set-phase-length", ["LUNCH", "3"], "set-phase-length: LUNCH: PHASE is one of WARMUP,"),
        ("silence", ["rule", "1.5"], "silence: 1.5: STEPS is a whole number"),
    ],
)
def test_a_wrong_word_or_argument_is_named(word: str, arguments: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        understood(word, arguments)
    assert str(error.value).startswith(says)
