"""CORRECT: which residuals were similar, what they weigh, and whether their correction helped. Pure."""

from dataclasses import dataclass

from app.store import Snapshot
from app.views import words
from trainer_core.spec.config import Config
from trainer_core.spec.phases import Phase
from trainer_core.spec.records import CorrectionApplied, PhaseChanged, PredictionEnded

SHOWN = 6
NONE_YET = "No correction yet: one follows every prediction that runs its course or misses its loss by too much."


@dataclass(frozen=True)
class Weight:
    """One selected residual."""

    label: str
    share: float
    """Of the largest weight."""
    value: str


@dataclass(frozen=True)
class Correct:
    """The card's content."""

    said: str
    facts: dict[str, str]
    weights: list[Weight]
    formula: str
    sums: str
    """The formula with its numbers."""
    result: str
    result_tone: str
    validation: str
    table: list[tuple[tuple[str, ...], str]]


def correct(snapshot: Snapshot, config: Config | None) -> Correct:
    """The CORRECT phase of a snapshot."""
    newest = snapshot.latest(CorrectionApplied)
    recent = snapshot.newest(PredictionEnded, 2 * SHOWN)
    ended = {end.cycle: end for end in recent}
    verdict = ended.get(newest.cycle) if newest is not None else None
    result, tone = _result(newest)
    return Correct(
        said=NONE_YET if newest is None else f"newest at step {newest.step:,}, cycle {newest.cycle:,}",
        facts=_facts(newest, config),
        weights=_weights(newest),
        formula="corrected weights = predicted weights + Σ wᵢ · rᵢ,   wᵢ = sᵢ / Σ s",
        sums=_sums(newest),
        result=result,
        result_tone=tone,
        validation=_validation(snapshot, newest, verdict),
        table=[_row(one, ended.get(one.cycle)) for one in reversed(snapshot.newest(CorrectionApplied, SHOWN))],
    )


def _facts(newest: CorrectionApplied | None, config: Config | None) -> dict[str, str]:
    limit = f"cosine > {config.predictor_config.similarity_threshold:g}" if config else ""
    top = f"top {config.predictor_config.top_k} by similarity" if config else ""
    if newest is None:
        dashes = dict.fromkeys(("history", "similar", "weighted", "magnitude", "gain"), words.ABSENT)
        return {**dashes, "limit": limit, "top": top}
    return {
        "history": words.count(newest.history),
        "similar": words.count(newest.similar),
        "weighted": words.count(len(newest.weights)),
        "magnitude": words.number(newest.magnitude) if newest.weights else words.ABSENT,
        "gain": words.number(newest.gain),
        "limit": limit,
        "top": top,
    }


def _weights(newest: CorrectionApplied | None) -> list[Weight]:
    if newest is None or not newest.weights:
        return []
    largest = max(weight.weight for weight in newest.weights)
    return [
        Weight(
            f"residual {weight.residual_id}",
            weight.weight / largest if largest > 0 else 0.0,
            f"w = {weight.weight:.3f} · cosine {weight.similarity:.3f}",
        )
        for weight in newest.weights
    ]


def _sums(newest: CorrectionApplied | None) -> str:
    if newest is None or not newest.weights:
        return ""
    first = newest.weights[0]
    total = sum(weight.similarity for weight in newest.weights)
    norm = "" if newest.magnitude is None else f" · norm of the sum {words.number(newest.magnitude)}"
    return f"for residual {first.residual_id}: w = {first.similarity:.3f} / {total:.3f} = {first.weight:.3f}{norm}"


def _result(newest: CorrectionApplied | None) -> tuple[str, str]:
    if newest is None:
        return "No correction yet.", "muted"
    if newest.applied:
        return f"✓ Applied: loss lower by {words.number(newest.gain)} on the same batch ({newest.because})", "healthy"
    if newest.gain is None:
        return f"– Not probed: {newest.because}", "muted"
    way = "lower" if newest.gain > 0 else "higher"
    return f"✕ Put back: loss {way} by {words.number(abs(newest.gain))} ({newest.because})", "muted"


def _validation(snapshot: Snapshot, newest: CorrectionApplied | None, verdict: PredictionEnded | None) -> str:
    """Whether the prediction was kept, and what that did to the next FULL window."""
    if newest is None:
        return ""
    if verdict is None:
        return "Validation: its full steps are being taken."
    said = "kept" if verdict.kept else "undone"
    loss = ""
    if verdict.loss_before is not None and verdict.loss_after is not None:
        loss = (
            f", loss {words.number(verdict.loss_before, 4)} → {words.number(verdict.loss_after, 4)} on the same batch"
        )
    return f"Validation: prediction {said}{loss}.{_window(snapshot, newest.cycle)}"


def _window(snapshot: Snapshot, cycle: int) -> str:
    """How the FULL window after ``cycle`` compares with the one before its prediction."""
    recent = snapshot.newest(PhaseChanged, 16)
    budgets = {c.cycle: c.budget for c in recent if c.to_phase is Phase.FULL and c.budget is not None}
    before, after = budgets.get(cycle), budgets.get(cycle + 1)
    if before is None or after is None:
        return ""
    if before == after:
        return f" The next FULL window stays at {after:,} step{'' if after == 1 else 's'}."
    return f" The next FULL window is {'longer' if after > before else 'shorter'}: {before:,} → {after:,} steps."


def _row(one: CorrectionApplied, verdict: PredictionEnded | None) -> tuple[tuple[str, ...], str]:
    """Step, history, similar, magnitude, gain, what was done, the prediction's verdict."""
    done = "✓ applied: " if one.applied else "– " if one.gain is None else "✕ put back: "
    cells = (
        words.count(one.step),
        words.count(one.history),
        words.count(one.similar),
        words.number(one.magnitude) if one.weights else words.ABSENT,
        words.number(one.gain),
        f"{done}{one.because}",
        words.ABSENT if verdict is None else "kept" if verdict.kept else "undone",
    )
    return cells, "healthy" if one.applied else ""
