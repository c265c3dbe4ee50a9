"""The document's tables with the run's own values beside them, as rows of text. Pure; draws nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from app.store import PhaseTally, Snapshot
from app.theme import ICON
from app.views import words
from app.views.measured import LABELS, newest, shown
from app.views.rules import THRESHOLDS
from trainer_core.spec.config import SETTINGS, Config
from trainer_core.spec.document import (
    ASPECTS,
    EXPECTED,
    PURPOSES,
    REFERENCE,
    SCHEDULES,
    TRIGGERS,
    ZONES,
    Trigger,
    Zone,
)
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import TRAITS, Phase
from trainer_core.spec.presets import PRESETS
from trainer_core.spec.render import shown as toml
from trainer_core.spec.severity import Ladder, Severity
from trainer_core.spec.transitions import TRANSITIONS, Transition, guard_name

SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Row:
    """One row of a table; ``tone`` is a severity name, or empty where nothing is to be said."""

    cells: tuple[str, ...]
    tone: str = ""


def transitions(snapshot: Snapshot) -> list[Row]:
    """Every row of the transition table, with the live truth of its guards while its phase is the present one."""
    lines = snapshot.explained.lines if snapshot.explained is not None else ()
    here = snapshot.explained.phase if snapshot.explained is not None else None
    live = {(line.to_phase, line.guard): line for line in lines} if here is snapshot.phase else {}

    def now(row: Transition) -> tuple[str, str]:
        found = [live.get((row.target, guard_name(guard))) for guard in row.guards]
        known = [line for line in found if line is not None]
        if row.source is not snapshot.phase or len(known) != len(found):
            return words.ABSENT, ""
        text = "; ".join(f"{'✓' if line.holds else '✗'} {line.detail}" for line in known)
        return text, "healthy" if all(line.holds for line in known) else ""

    rows = []
    for row in TRANSITIONS:
        text, tone = now(row)
        guards = " AND ".join(guard_name(guard) for guard in row.guards)
        taken = f"{snapshot.edges.get((row.source, row.target), 0):,}×"
        rows.append(Row((row.source.value, row.target.value, taken, row.cause, guards, text), tone))
    return rows


def triggers(snapshot: Snapshot, config: Config) -> list[Row]:
    """Divergence triggers with the newest values."""
    return [_trigger(trigger, snapshot, config) for trigger in TRIGGERS]


def _trigger(trigger: Trigger, snapshot: Snapshot, config: Config) -> Row:
    if trigger.setting is None:
        loss = newest(snapshot, "loss")
        bad = loss.value is not None and not abs(loss.value) < float("inf")
        live = words.ABSENT if loss.value is None else "NaN or Inf" if bad else "all finite"
        return Row((trigger.signal, "any occurrence", live, trigger.action), "critical" if bad else "")
    setting = SETTINGS[trigger.setting]
    limit = float(getattr(getattr(config, setting.section), setting.name))
    live_value = newest(snapshot, trigger.field)
    value = live_value.value
    passed = value is not None and (value > limit if trigger.above else value < limit)
    sign = ">" if trigger.above else "<"
    return Row(
        (trigger.signal, f"{sign} {shown(trigger.field, limit)}", live_value.text, trigger.action),
        "warning" if passed else "",
    )


def hyperparameters(config: Config | None) -> list[Row]:
    """The presets beside the run's own values; which of them it agrees with is said in words. None: it has no such."""
    rows = []
    for key in REFERENCE:
        section, name = key.split(".")
        theirs = [preset_value(size, section, name) for size in SIZES]
        if config is None:
            rows.append(Row((_named(section, name), *map(toml, theirs), words.ABSENT, "")))
            continue
        own = getattr(getattr(config, section), name)
        same = [size for size, value in zip(SIZES, theirs, strict=True) if value == own]
        verdict = f"= {', '.join(same)}" if same else "own optimizer's" if own is None else "none of them"
        rows.append(Row((_named(section, name), *map(toml, theirs), toml(own), verdict), "" if same else "caution"))
    return rows


def _named(section: str, name: str) -> str:
    return {"learning_rate.initial": "learning_rate", "predictor_config.type": "predictor_type",
            "predictor_config.ensemble_size": "predictor_ensemble"}.get(f"{section}.{name}", name)  # fmt: skip


def preset_value(preset: str, section: str, name: str) -> object:
    """What a preset says of a setting, or the setting's default."""
    return PRESETS[preset].get(section, {}).get(name, SETTINGS[f"{section}.{name}"].default)


def specialist_generalist(config: Config | None) -> list[Row]:
    """The comparison table with the run's own value where it is a setting."""
    return [
        Row((row.aspect, row.specialist, row.generalist, _own(row.setting, config) if row.setting else words.ABSENT))
        for row in ASPECTS
    ]


def _own(setting: str, config: Config | None) -> str:
    if config is None:
        return words.ABSENT
    section, name = setting.split(".")
    value = getattr(getattr(config, section), name)
    return words.ABSENT if value is None else toml(value)


def schedules(config: Config | None) -> list[Row]:
    """The schedule guide; rows of the run's own schedule are marked."""
    own = config.learning_rate_schedule.type if config is not None else None
    return [
        Row((row.training, row.schedule, row.reason, "● this run's" if row.type == own else ""),
            "healthy" if row.type == own else "")
        for row in SCHEDULES
    ]  # fmt: skip


def zones(snapshot: Snapshot, config: Config) -> list[Row]:
    """Gradient norm zones with the live zone marked."""
    ladder, live = ladders(config)["grad_norm"], newest(snapshot, "grad_norm")
    severity = None if live.value is None else ladder.classify(live.value)
    low, high = ladder.healthy
    return [_zone(zone, ladder, (low, high), live.value, live.text, severity) for zone in ZONES]


def _zone(
    zone: Zone, ladder: Ladder, healthy: tuple[float, float], value: float | None, text: str, severity: Severity | None
) -> Row:
    low, high = healthy
    side = value is not None and (zone.above is None or (value > high if zone.above else value < low))
    here = severity is zone.severity and side
    span = {
        "Healthy": f"{low:g} - {high:g}",
        "Explosion": f"> {high:g}",
        "Vanishing": f"< {low:g}",
        "Extreme": f"> {ladder.critical_above:g} or < {ladder.critical_below:g}",
    }[zone.zone]
    status = f"{ICON[zone.severity]} {'OK' if zone.severity is Severity.HEALTHY else zone.severity.name.capitalize()}"
    return Row((zone.zone, span, status, zone.action, f"● {text}" if here else ""),
               zone.severity.name.lower() if here else "")  # fmt: skip


def phases(snapshot: Snapshot) -> list[Row]:
    """The phase quick reference with what this run did in each."""
    total = sum(tally.steps for tally in snapshot.tallies.values())
    rows = []
    for phase in Phase:
        traits, tally = TRAITS[phase], snapshot.tallies.get(phase, PhaseTally())
        mean = f"{tally.steps / tally.entered:.1f}" if tally.entered else words.ABSENT
        low, high = traits.typical_steps
        here = phase is snapshot.phase and not snapshot.own_loop
        rows.append(
            Row(
                (
                    f"{phase.letter} {phase.value.capitalize()}", traits.compute, f"{low}-{high}", PURPOSES[phase],
                    f"{tally.steps:,}", words.share(tally.steps, total), f"{tally.entered:,}", mean,
                    "● now" if here else "",
                ),
                "healthy" if here else "",
            )
        )  # fmt: skip
    return rows


def thresholds(snapshot: Snapshot, config: Config) -> list[Row]:
    """Critical Thresholds with the live value."""
    found = ladders(config)
    rows = []
    for signal in THRESHOLDS:
        ladder, live = found[signal], newest(snapshot, signal)
        severity = None if live.value is None else ladder.classify(live.value)
        mark = live.text if severity is None else f"{ICON[severity]} {live.text}"
        healthy, warning, critical = (_range(signal, ladder, s) for s in _LADDER)
        tone = "" if severity in (None, Severity.HEALTHY) or severity is None else severity.name.lower()
        rows.append(Row((LABELS[signal], healthy, warning, critical, mark), tone))
    return rows


_LADDER = (Severity.HEALTHY, Severity.WARNING, Severity.CRITICAL)


def _range(signal: str, ladder: Ladder, severity: Severity) -> str:
    """One column of the table, as the document writes it."""
    if severity is Severity.HEALTHY:
        edges = (ladder.warning_below, ladder.warning_above)
    elif severity is Severity.WARNING:
        return _either(_between(signal, ladder.critical_below, ladder.warning_below),
                       _between(signal, ladder.warning_above, ladder.critical_above))  # fmt: skip
    else:
        return _either(
            None if ladder.critical_below is None else f"< {shown(signal, ladder.critical_below)}",
            None if ladder.critical_above is None else f"> {shown(signal, ladder.critical_above)}",
        )
    low, high = edges
    if low is not None and high is not None:
        return f"{shown(signal, low)} - {shown(signal, high)}"
    return f"> {shown(signal, low)}" if low is not None else f"< {shown(signal, high)}"


def _between(signal: str, low: float | None, high: float | None) -> str | None:
    if low is None or high is None:
        return None
    return f"{shown(signal, low)} - {shown(signal, high)}"


def _either(*parts: str | None) -> str:
    return " or ".join(part for part in parts if part is not None) or words.ABSENT


def expected(snapshot: Snapshot) -> list[Row]:
    """The document's expected performance, and what of it this run shows by itself."""
    rows: Iterable[Row] = (
        Row((e.preset, e.speedup, e.loss_gap, e.backward_reduction or words.ABSENT)) for e in EXPECTED
    )
    if snapshot.own_loop:
        return list(rows)
    last = snapshot.last
    saved = 1 - snapshot.backward_passes / last.step if last is not None and last.step else None
    own = words.ABSENT if saved is None else f"{saved:.0%} measured"
    return [*rows, Row(("this run", "account below", "account below", own), "healthy" if saved and saved > 0 else "")]
