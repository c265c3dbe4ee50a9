"""The run's own curve against the document's healthy one: its stages in numbers, and its four characteristics. Pure."""

from dataclasses import dataclass

import numpy as np

from app.alert_log import Life
from app.store import PHASES, Snapshot
from app.table import F64
from app.views import words
from app.views.health_flags import lives
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders
from trainer_core.spec.phases import Phase

RECENT = 1000
"""Measured steps that the characteristics are about."""
CLOSE = 0.05
"""A predicted loss within this share of the measured one is the document's "matches"."""
SPREAD = 20
"""Steps of the means at the ends of warmup, at most."""
FEWEST = 5


@dataclass(frozen=True)
class Characteristic:
    """One line of the document's list. ``met`` None: not measured yet."""

    text: str
    met: bool | None
    detail: str


@dataclass(frozen=True)
class Stage:
    """One annotation: what the run did in a phase, at a place on its curve."""

    text: str
    step: float
    loss: float


def _finite(values: F64) -> F64:
    return values[np.isfinite(values)]


def _recent(snapshot: Snapshot, name: str) -> F64:
    return snapshot.steps[name][-RECENT:]


def stages(snapshot: Snapshot) -> list[Stage]:
    """Warmup's descent, and the last full and predicted stretch, on the surviving line."""
    if snapshot.own_loop or not snapshot.steps.length:
        return []
    starts, codes = snapshot.spans["start"], snapshot.spans["phase"]
    end = float(snapshot.last.step) if snapshot.last else 0.0
    found = [_warmup(snapshot)] if len(starts) > 1 and PHASES[int(codes[0])] is Phase.WARMUP else []
    for phase in (Phase.FULL, Phase.PREDICT):
        at = np.flatnonzero(codes[-50:] == PHASES.index(phase)) + max(0, len(codes) - 50)
        ended = at[at < len(starts) - 1]
        if len(ended):
            low = float(starts[ended[-1]])
            high = float(starts[ended[-1] + 1]) - 1 if ended[-1] + 1 < len(starts) else end
            found.append(_full(snapshot, low, high) if phase is Phase.FULL else _predicted(snapshot, low, high))
    return [stage for stage in found if stage is not None]


def _between(snapshot: Snapshot, low: float, high: float, name: str = "loss") -> F64:
    ranges = snapshot.steps.window(low, high)[-1:]
    return _finite(np.concatenate([np.empty(0), *(snapshot.steps[name][start:stop] for start, stop in ranges)]))


def _warmup(snapshot: Snapshot) -> Stage | None:
    until = float(snapshot.spans["start"][1]) - 1
    first, last = _between(snapshot, 0, SPREAD), _between(snapshot, until - SPREAD, until)
    if not len(first) or not len(last):
        return None
    fell = 100 * (last.mean() - first.mean()) / abs(first.mean())
    return Stage(f"Warmup: {first.mean():.3g} → {last.mean():.3g} ({words.change(fell)})", until / 2,
                 float((first.mean() + last.mean()) / 2))  # fmt: skip


def _full(snapshot: Snapshot, low: float, high: float) -> Stage | None:
    losses = _between(snapshot, low, high)
    if len(losses) < 4:
        return None
    half = len(losses) // 2
    moved = 100 * (losses[half:].mean() - losses[:half].mean()) / max(abs(losses[:half].mean()), 1e-12)
    return Stage(f"Full: {words.change(moved)} over {len(losses):,} steps", (low + high) / 2, float(losses.mean()))


def _predicted(snapshot: Snapshot, low: float, high: float) -> Stage | None:
    path = snapshot.path.window(low, high)[-1:]
    expected = _finite(np.concatenate([np.empty(0), *(snapshot.path["loss"][a:b] for a, b in path)]))
    if not len(expected):
        return None
    errors = _between(snapshot, low, high, "prediction_error")
    off = f", {np.median(errors):.1%} off" if len(errors) else ", not measured inside"
    count = int(high - low + 1)
    return Stage(f"Predict: {count} step{'s' * (count != 1)}{off}", (low + high) / 2, float(expected.mean()))


def characteristics(snapshot: Snapshot, config: Config | None) -> list[Characteristic]:
    """The document's four, over the last steps; the same cost however long the run."""
    found = lives(snapshot)
    return [_descent(snapshot), _matches(snapshot), _calm(snapshot, config, found), _stable(snapshot, config)]


def _descent(snapshot: Snapshot) -> Characteristic:
    text = "Smooth descent during warmup"
    if snapshot.own_loop:
        return Characteristic(text, None, "no phases in this loop")
    starts = snapshot.spans["start"]
    over = len(starts) > 1
    until = float(starts[1]) - 1 if over else float(snapshot.last.step if snapshot.last else 0)
    losses = _between(snapshot, 0, min(until, 5000))
    spread = min(SPREAD, len(losses) // 2)
    if spread < FEWEST:
        return Characteristic(text, None, f"{len(losses)} steps measured, {2 * FEWEST} needed")
    first, last = losses[:spread].mean(), losses[-spread:].mean()
    return Characteristic(text, bool(last < first), f"{first:.3g} → {last:.3g}{'' if over else ' so far'}")


def _matches(snapshot: Snapshot) -> Characteristic:
    text = f"Predicted loss within {100 * CLOSE:.0f} % of actual"
    errors = _finite(_recent(snapshot, "prediction_error"))
    if not len(errors):
        return Characteristic(text, None, "no predicted loss was measured lately")
    close = float((errors <= CLOSE).mean())
    return Characteristic(
        text, close >= 0.5, f"{100 * close:.0f} % of {len(errors)} steps, median {np.median(errors):.1%}"
    )


def _calm(snapshot: Snapshot, config: Config | None, found: dict[str, Life]) -> Characteristic:
    text = "No sudden spikes or plateaus"
    deviations = _finite(_recent(snapshot, "loss_deviation"))
    flat = "plateau" in found and found["plateau"].resolved is None
    if not len(deviations) or config is None:
        return Characteristic(text, None, "not measured yet")
    limit = ladders(config)["loss_deviation"].critical_above or np.inf
    spikes = int((deviations > limit).sum())
    first = float(_recent(snapshot, "step")[0])
    lately = [n for n in snapshot.not_finite[-50:] if n.signal == "loss" and n.last_step >= first]
    broken = f", NaN or infinite at step {lately[-1].first_step:,}" if lately else ""
    detail = f"{spikes} of {len(deviations)} steps above {limit:g} sigma{broken}{', on a plateau' if flat else ''}"
    return Characteristic(text, spikes <= len(deviations) // 100 and not flat and not lately, detail)


def _stable(snapshot: Snapshot, config: Config | None) -> Characteristic:
    text = "Stable gradient norms"
    norms, bases = _recent(snapshot, "grad_norm"), _recent(snapshot, "grad_norm_baseline")
    known = np.isfinite(norms) & np.isfinite(bases) & (bases > 0)
    if not known.any() or config is None:
        return Characteristic(text, None, "no baseline yet")
    factor, ratios = config.health.gradient_stable_factor, norms[known] / bases[known]
    inside = float(((ratios <= factor) & (ratios >= 1 / factor)).mean())
    return Characteristic(
        text, inside >= 0.9, f"{100 * inside:.0f} % of {len(ratios)} steps within {factor:g}x of baseline"
    )
