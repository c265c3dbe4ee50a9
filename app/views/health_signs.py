"""The document's warning signs, over- and underfitting, vanishing gradients and NaN: seen now, seen once, or not. Pure.

What causes a sign and what helps is said by the alert rules of the spec; here is only where it stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.alert_log import Life
from app.store import Snapshot
from app.theme import ICON
from app.views import words
from app.views.alerts import after_going_back, went_back
from app.views.commands import title as command_title
from app.views.health_flags import lives
from trainer_core.spec.alerts import NOT_FINITE, RULES
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity

BY_NAME = {rule.name: rule for rule in (*RULES, NOT_FINITE)}


@dataclass(frozen=True)
class Sign:
    """One sign: ``rules`` are the alerts that show it, the first says its causes and what to do."""

    key: str
    title: str
    symptoms: str
    """As the document has them."""
    rules: tuple[str, ...]
    signal: str
    """The number that tells how near it is; empty: none."""
    said: str
    """That number in words, with {value} and {limit}."""
    phases: bool = False
    """It is about predictions, which a loop without phases has none of."""

    @property
    def causes(self) -> str:
        """What the document says is behind it."""
        return BY_NAME[self.rules[0]].causes

    @property
    def remedy_name(self) -> str | None:
        """The name of its remedy; None: there is none."""
        return BY_NAME[self.rules[0]].remedy

    @property
    def remedy(self) -> str:
        """What the remedy would do, in words; empty: there is none."""
        name = self.remedy_name
        return (REMEDIES[name].__doc__ or "") if name else ""

    @property
    def advice(self) -> str:
        """Settings of the next run that help."""
        return BY_NAME[self.rules[0]].advice


SIGNS = (
    Sign("divergence", "Prediction divergence", "The measured loss lies more than 10 % from the predicted one.",
         ("prediction error", "frequent divergence", "divergence loop"), "divergence_rate",
         "{value} divergences per 100 predicted steps, limit {limit}", phases=True),
    Sign("explosion", "Gradient explosion", "The gradient norm is more than 10 times its baseline.",
         ("gradient explosion", "gradient norm", "layer gradient explosion"), "grad_growth",
         "{value} times its baseline, limit {limit}"),
    Sign("vanishing", "Vanishing gradient", "The gradient norm is below 0.1, or a layer's below 0.01.",
         ("gradient vanishing", "dead layers", "layer gradient vanishing"), "layer_norm_low",
         "smallest layer {value}, limit {limit}"),
    Sign("plateau", "Loss plateau", "The loss has not fallen for more than 500 steps.",
         ("plateau",), "steps_without_gain", "{value} steps without a gain, limit {limit}"),
    Sign("oscillation", "Oscillation", "The loss changes direction more than 3 times in 10 steps.",
         ("oscillation",), "sign_changes", "{value} changes of direction in 10 steps, limit {limit}"),
    Sign("overfitting", "Overfitting", "Validation rises or stays while training falls; the gap grows beyond 0.5.",
         ("overfitting", "validation gap"), "validation_gap", "validation - training {value}, limit {limit}"),
    Sign("underfitting", "Underfitting", "Both losses stay high and flat while the gradients are healthy.",
         ("underfitting",), "underfitting", "{value} validations high and flat, limit {limit}"),
    Sign("nan", "NaN or infinite loss", "The loss becomes NaN or infinite, usually suddenly.",
         ("not finite",), "", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How a sign stands at one moment."""

    sign: Sign
    lit: bool
    """Its alert is open."""
    severity: Severity
    icon: str
    line: str
    """Seen since when, seen once, or not seen; and the number."""
    fix: str
    """What the open alert's remedy would send now; empty while nothing is to be fixed."""

    @property
    def tone(self) -> str:
        """A colour by meaning."""
        return self.severity.name.lower() if self.lit else "muted"


def signs(snapshot: Snapshot, config: Config | None) -> list[Standing]:
    """Every sign as it stands."""
    found = lives(snapshot)
    return [_standing(snapshot, sign, found, config) for sign in SIGNS]


def _standing(snapshot: Snapshot, sign: Sign, found: Mapping[str, Life], config: Config | None) -> Standing:
    if sign.phases and snapshot.own_loop:
        return Standing(sign, False, Severity.HEALTHY, "–", "a loop of its own predicts nothing", "")
    known = [found[rule] for rule in sign.rules if rule in found]
    standing = [life for life in known if life.resolved is None]
    if standing:
        worst = max(standing, key=lambda life: life.raised.severity)
        severity = Severity(worst.raised.severity)
        line = f"since step {worst.first_step:,}: {_numbers(worst)}"
        return Standing(sign, True, severity, ICON[severity], line, _fix(worst))
    number = near(snapshot, sign, config)
    if not known:
        seen = "not seen" if snapshot.steps.length else "nothing measured yet"
    else:
        last = max(known, key=lambda life: life.first_step)
        ended = last.resolved.step if last.resolved else last.first_step
        back = after_going_back(went_back(last, snapshot))
        seen = f"seen at step {last.first_step:,}, over at {ended:,}{back}"
    return Standing(sign, False, Severity.HEALTHY, "✓", f"{seen} · {number}" if number else seen, "")


def _numbers(life: Life) -> str:
    """What was measured against what, without the causes that stand below."""
    raised = life.raised
    measured = raised.rule if raised.value is None else f"{raised.rule}, {words.number(raised.value)}"
    return measured if raised.limit is None else f"{measured} against a limit of {words.number(raised.limit)}"


def _fix(life: Life) -> str:
    sent = ", ".join(command_title(command).lower() for command in life.raised.commands)
    return f"Remedy ready: {sent}" if sent else ""


def near(snapshot: Snapshot, sign: Sign, config: Config | None) -> str:
    """The number that tells how near a sign is; empty while it is not measured."""
    if not sign.signal:
        found = {(n.attempt, n.first_step) for n in snapshot.not_finite if n.signal in ("loss", "grad_norm")}
        times = f"{len(found)} times so far" if len(found) > 1 else "once so far"  # loss and gradient of a step are one
        return f"{times}, last at step {max(found)[1]:,}" if found else ""
    value = (snapshot.side.health.values if snapshot.side.health else {}).get(sign.signal)
    if value is None:
        value = getattr(snapshot.last, sign.signal, None)
    if value is None or config is None:
        return ""
    ladder = ladders(config)[sign.signal]
    limits = [limit for _, above, below in ladder.rungs() for limit in (above, below) if limit is not None]
    return sign.said.format(value=words.number(float(value)), limit=words.number(limits[-1])) if limits else ""
