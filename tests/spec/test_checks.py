"""A bad command is refused in one sentence: which field, its value, what is allowed. Every kind and every field."""

import math
from typing import Any, get_args

import msgspec
import pytest

from trainer_core.spec.checks import KINDS, problem_with, why_not
from trainer_core.spec.commands import Command, CommandRequest
from trainer_core.telemetry import wire

GOOD: dict[str, dict[str, Any]] = {
    "force-phase": {"phase": "FULL"},
    "set-threshold": {"name": "confidence_threshold", "value": 0.9},
    "rollback": {"checkpoint": None},
    "checkpoint": {},
    "pause": {},
    "resume": {},
    "stop": {},
    "set-learning-rate": {"value": 0.01},
    "scale-learning-rate": {"factor": 0.5},
    "set-gradient-clip": {"max_norm": 1.0},
    "set-weight-decay": {"value": 0.1},
    "set-knob": {"name": "dropout", "value": 0.1},
    "set-phase-length": {"phase": "FULL", "steps": 5},
    "lock-prediction": {"locked": True},
    "acknowledge-alert": {"alert_id": "alert-0-1"},
    "silence-alert": {"rule": "plateau", "steps": 5},
    "annotate": {"text": "x"},
    "apply-remedy": {"remedy": "nan_loss"},
}
"""Good arguments of every kind."""

MISSING = object()
NUMBER = ("a finite number", [math.nan, math.inf, -math.inf, "1", True, None, [1.0], {}])
RATE = ("a finite number above 0 and at most 100", [*NUMBER[1], 0, -1, 101, 1e300])
STEPS = ("a whole number", [0, -1, 2.5, math.nan, "3", True, None, 2**63])
NAME = ("a text of 1 to 200 characters", ["", "x" * 201, 5, None, True, b"x"])
PHASE = ("one of WARMUP, FULL, PREDICT, CORRECT", ["NOPE", "full", "", 1, None, math.nan])
BAD: dict[tuple[str, str], list[tuple[str, list[Any]]]] = {
    ("force-phase", "phase"): [PHASE],
    ("set-threshold", "name"): [NAME, ("no such setting", ["nonsense"]), ("cannot be changed", ["warmup_steps"])],
    ("set-threshold", "value"): [NUMBER, ("a number from 0 to 1", [1.5, -0.1, 1e300])],
    ("rollback", "checkpoint"): [("none", ["", "x" * 201, 5, True])],
    ("set-learning-rate", "value"): [RATE],
    ("scale-learning-rate", "factor"): [("a finite number above 0", [*NUMBER[1], 0, -1])],
    ("set-gradient-clip", "max_norm"): [("at least 0", [*NUMBER[1], -1]), ("from 0 to 1e+06", [1e7])],
    ("set-weight-decay", "value"): [("at least 0", [*NUMBER[1], -1]), ("from 0 to 10", [11.0])],
    ("set-knob", "name"): [NAME],
    ("set-knob", "value"): [NUMBER],
    ("set-phase-length", "phase"): [PHASE, ("cannot be changed", ["WARMUP"])],
    ("set-phase-length", "steps"): [STEPS, ("from 1 to 1e+07", [10**8])],
    ("lock-prediction", "locked"): [("true or false", [0, 1, "true", None, math.nan])],
    ("acknowledge-alert", "alert_id"): [NAME],
    ("silence-alert", "rule"): [NAME, ("no alert rule called", ["nonsense"])],
    ("silence-alert", "steps"): [STEPS],
    ("annotate", "text"): [("a text of 1 to 2000 characters", ["", "x" * 2001, 5, None])],
    ("apply-remedy", "remedy"): [NAME, ("there is no remedy nonsense; there are: nan_loss", ["nonsense"])],
}
REQUEST: dict[str, tuple[str, list[Any]]] = {
    "command_id": ("a text of 8 to 64 characters", ["short", "x" * 65, 5, None, MISSING]),
    "expect_state_rev": ("a whole number or none", [1.5, "1", True]),
    "at_step": ("a whole number at least 0 and at most 9007199254740992 or none", [-1, 2**63, 1.5, "1", True]),
    "ttl_s": ("a finite number above 0 and at most 86400", [0, -1, 86401, math.nan, math.inf, "1", None]),
    "reason": ("a text of 0 to 2000 characters", ["x" * 2001, 5, None]),
    "on_behalf_of": ("a text of 0 to 200 characters", ["x" * 201, 5, None]),
}


def refusal(command: object, **request: Any) -> str | None:
    """What a run would say of a request that came over the wire; None when it is taken."""
    asked = {"command_id": "a-command", "command": command} | request
    given = {name: value for name, value in asked.items() if value is not MISSING}
    body = msgspec.msgpack.encode({"ask": "send", "protocol": 1, "token": 1, "request": given})
    try:
        order = wire.orders.decode(body)
    except msgspec.ValidationError as error:
        return wire.explained(body, error)
    assert isinstance(order, wire.Send)
    return problem_with(order.request.command)


def test_the_table_has_every_kind_and_every_field_of_it() -> None:
    assert set(GOOD) == set(KINDS) and len(KINDS) == len(get_args(Command))
    fields = {(kind, field) for kind, made in KINDS.items() for field in made.__struct_fields__}
    assert fields == set(BAD)
    assert set(REQUEST) == set(CommandRequest.__struct_fields__) - {"command"}


@pytest.mark.parametrize("kind", GOOD)
def test_good_arguments_are_taken_and_a_field_too_many_or_too_few_is_not(kind: str) -> None:
    good = {"kind": kind, **GOOD[kind]}
    assert refusal(good) is None
    many = refusal(good | {"surprise": 1})
    assert many is not None and many.startswith(f"{kind}: there is no field 'surprise'; there are: ")
    for field in msgspec.structs.fields(KINDS[kind]):
        few = refusal({name: value for name, value in good.items() if name != field.name})
        if field.required:
            assert few is not None and few.startswith(f"{kind}: {field.name} is missing: ")
        else:
            assert few is None


@pytest.mark.parametrize(("kind", "field"), BAD, ids=lambda x: x)
def test_a_bad_argument_is_named_with_its_value_and_what_is_allowed(kind: str, field: str) -> None:
    for allowed, values in BAD[kind, field]:
        for value in values:
            said = refusal({"kind": kind, **GOOD[kind], field: value})
            assert said is not None, f"{field} = {value!r} was taken"
            assert said.startswith(f"{kind}: ") and "\n" not in said and len(said) < 4000
            assert allowed in said, said
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            shown = {str(value)[:20], f"{value:g}"} if number else {str(value)[:20]}
            assert any(text in said for text in shown) or "must be" not in said, said


@pytest.mark.parametrize("field", REQUEST)
def test_what_surrounds_a_command_is_checked_as_well(field: str) -> None:
    allowed, values = REQUEST[field]
    for value in values:
        said = refusal({"kind": "pause"}, **{field: value})
        assert said is not None and allowed in said and field in said, said
    assert refusal({"kind": "pause"}, surprise=1) is not None


@pytest.mark.parametrize("command", [{"kind": "format-disk"}, {}, 3, None, [], "pause", MISSING, {"kind": ["pause"]}])
def test_what_is_no_command_is_said_to_be_none(command: object) -> None:
    said = refusal(command)
    assert said is not None and ("there is no command" in said or said.startswith("command"))


def test_what_is_no_request_at_all_is_not_explained() -> None:
    assert why_not(3) is None
    for body in (b"", b"\x91" * 20_000, b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"ask": "send"})):
        assert wire.explained(body, ValueError("why")) == "not a request of this protocol: why"
