"""What a remedy would change now: its exact commands as before and after. Pure; sends nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from app.views.commands import rollback_targets, title
from app.views.measured import newest
from app.views.settings import present_config
from trainer_core.spec.alerts import LIMIT_SECTIONS
from trainer_core.spec.commands import (
    ApplyRemedy,
    Command,
    Rollback,
    ScaleLearningRate,
    SetGradientClip,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.config import SETTINGS, Config
from trainer_core.spec.remedies import REMEDIES
from trainer_core.spec.severity import Severity

OWN_LOOP = "a training loop of its own cannot carry it out: weights, clipping and phases are not the monitor's"


@dataclass(frozen=True)
class Before:
    """One line of the diff."""

    name: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """``learning_rate 0.001 → 0.0005``."""
        return f"{self.name} {self.before} → {self.after}"


@dataclass(frozen=True)
class Plan:
    """A remedy as it would act now."""

    remedy: str
    meaning: str
    """In words, as ``spec.remedies`` says it."""
    lines: tuple[Before, ...]
    """Empty: it would change nothing, what it sets is at its bound already."""
    throws_away: str
    """What a rollback in it would cost; empty without one."""
    cannot: str = ""
    """Why this run can never carry it out; empty: it can."""
    against: str = ""
    """What in this run speaks against it; empty: nothing that is known."""

    @property
    def nothing(self) -> str:
        """Why it would change nothing; empty: it would."""
        return "" if self.lines else self.cannot or "would change nothing: what it sets is at its bound already"

    @property
    def command(self) -> ApplyRemedy:
        """The one command that applies all of it or nothing."""
        return ApplyRemedy(self.remedy)


def plan(snapshot: Snapshot, remedy: str, config: Config | None = None) -> Plan | None:
    """What ``remedy`` would do now; None while the settings are unknown, or for a remedy of another version."""
    config = present_config(snapshot) if config is None else config
    if config is None or remedy not in REMEDIES:
        return None
    commands, meaning = REMEDIES[remedy](config), (REMEDIES[remedy].__doc__ or remedy).strip()
    if snapshot.own_loop and not all(map(_for_any_loop, commands)):
        return Plan(remedy, meaning, (), "", OWN_LOOP)
    rolled = any(isinstance(command, Rollback) for command in commands)
    targets = rollback_targets(snapshot) if rolled else []
    good = next((target for target in targets if target.good), None)
    lines = tuple(_line(command, snapshot, config, good.step if good is not None else None) for command in commands)
    cost = "" if not rolled else good.cost if good is not None else "unknown: no checkpoint is known to be good"
    return Plan(remedy, meaning, lines, cost, against=against(snapshot, commands))


def against(snapshot: Snapshot, commands: Sequence[Command]) -> str:
    """What speaks against ``commands`` that raise the learning rate: alerts whose own remedy lowers it.

    Those that are open; without one, the newest that was critical in this run. Empty: nothing, or nothing is raised.
    """
    if not any(factor > 1.0 for factor in _factors(commands)):
        return ""
    log = snapshot.side.alerts
    lowering = [life.raised.rule for life in log.open if any(factor < 1.0 for factor in _factors(life.raised.commands))]
    if lowering:
        are = "is open and asks" if len(lowering) == 1 else "are open and ask"
        return f"{' and '.join(sorted(set(lowering)))} {are} for a lower learning rate, not a higher one"
    for life in reversed(log.resolved):
        critical = life.raised.severity >= Severity.CRITICAL
        if critical and any(factor < 1.0 for factor in _factors(life.raised.commands)):
            return f"{life.raised.rule} was critical at step {life.raised.step:,}, and asked for a lower learning rate"
    return ""


def _factors(commands: Sequence[Command]) -> list[float]:
    return [command.factor for command in commands if isinstance(command, ScaleLearningRate)]


def _for_any_loop(command: Command) -> bool:
    """Whether a loop of the user's own, watched by a Monitor, can carry it out."""
    if isinstance(command, SetThreshold):
        return SETTINGS[command.name].section in LIMIT_SECTIONS
    return isinstance(command, ScaleLearningRate | SetWeightDecay)


def _line(command: Command, snapshot: Snapshot, config: Config, good: int | None) -> Before:
    match command:
        case Rollback():
            step = snapshot.last.step if snapshot.last is not None else 0
            return Before("weights", f"step {step:,}", f"step {good:,}" if good is not None else "last good checkpoint")
        case ScaleLearningRate(factor=factor):
            rate = newest(snapshot, "learning_rate").value
            known = rate is not None and math.isfinite(rate)
            after = f"{rate * factor:.3g}" if known and rate is not None else f"× {factor:g}"
            return Before("learning_rate", f"{rate:.3g}" if known else words.ABSENT, after)
        case SetGradientClip(max_norm=value):
            return Before("gradient_clip_norm", _off(config.optimizer.gradient_clip_norm), _off(value))
        case SetWeightDecay(value=value):
            return Before("weight_decay", f"{config.optimizer.weight_decay:g}", f"{value:g}")
        case SetThreshold(name=name, value=value):
            setting = SETTINGS[name]
            return Before(name, f"{getattr(getattr(config, setting.section), setting.name):g}", f"{value:g}")
        case _:
            return Before(title(command), words.ABSENT, "done")


def _off(clip: float) -> str:
    return f"{clip:g}" if clip else "off"
