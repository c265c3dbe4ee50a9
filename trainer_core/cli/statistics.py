"""The last block of a run's text: the document's final statistics, and the ledger behind them. Pure: Report -> lines.

Every time and ratio says whether it was measured on a baseline run or is an estimate.
"""

from collections.abc import Iterator, Sequence

from trainer_core.cli.output import figure
from trainer_core.cli.progress import clock_text
from trainer_core.spec.phases import Phase
from trainer_core.telemetry.comparison import Comparison, Cost, EqualLoss, Gap
from trainer_core.telemetry.report import Report
from trainer_core.telemetry.savings import Ledger, Saved

_BASIS = {"estimate": "an estimate", "measured": "measured"}


def final_statistics(report: Report) -> Sequence[str]:
    """The block. A loss gap needs a baseline run; where there is none that is said, not guessed."""
    heading = f"Final Statistics ({_taken(report)}):"
    c = report.comparison
    said = [heading, "─" * len(heading), f"Total time: {clock_text(report.wall_seconds)}"]
    if report.plain:
        said.append("Plain baseline: prediction was locked from the start")
    if report.own_loop:
        said.append("A training loop of its own, watched by a Monitor: nothing was predicted")
    elif report.plain:
        said += [f"Time in steps: {report.training_seconds:.1f} s", f"Backward passes: {report.backward_passes:,}"]
    else:
        said += _against_a_plain_loop(report)
    said.append("Final loss: " + ("not measured" if report.final_loss is None else figure(report.final_loss, ".3f")))
    if report.validation_loss is not None:
        accuracy = "" if report.validation_accuracy is None else f" | Accuracy: {report.validation_accuracy:.1%}"
        at = "" if report.validated_at in (None, report.steps) else f" (of step {report.validated_at:,})"
        said.append(f"Validation loss: {figure(report.validation_loss, '.3f')}{accuracy}{at}")
    if c is not None or not (report.own_loop or report.plain):
        said += ["Loss gap: not measured (no baseline run)"] if c is None else _compared(c)
    said.append(f"Attempts: {report.attempts} | Alerts: {len(report.alerts)} | Commands: {len(report.commands)}")
    said.append(f"State: {report.state or 'unknown (the trainer said nothing)'}")
    if report.steps and not report.own_loop:
        said += ["", *_account(report.ledger, saves=not report.plain)]
    return said


def _taken(report: Report) -> str:
    """How many steps; a loop that a Monitor watches may tell of some only."""
    last = report.ledger.nominal_steps
    told = f"{report.steps:,} steps"
    return f"{told} told, up to step {last:,}" if report.own_loop and last != report.steps else told


def _against_a_plain_loop(report: Report) -> Iterator[str]:
    """What a hybrid run saved, and its predictions."""
    predictions = report.predictions
    if report.ledger.saved is not None:
        yield from _time(report.training_seconds, report.ledger.saved)
    yield f"Backward passes: {report.backward_passes:,} (vs {report.steps:,} baseline)"
    if report.backward_reduction is not None:
        yield f"Backward reduction: {report.backward_reduction:.0%}"
    yield f"Predictions: {predictions.entered} entered, {predictions.kept} kept, {predictions.undone} undone"


def _time(seconds: float, saved: Saved) -> list[str]:
    basis = _BASIS[saved.basis]
    return [
        f"Time in steps: {seconds:.1f} s (vs {saved.baseline_seconds:.1f} s baseline: {basis}, {saved.method})",
        f"Speedup: {saved.speedup:.1f}x ({basis}, at equal steps)",
    ]


def _compared(c: Comparison) -> Iterator[str]:
    yield f"Baseline: {c.baseline} ({c.baseline_steps:,} steps, {c.baseline_seconds:.1f} s; compared by {c.measure})"
    final = "not measured" if c.run_final is None else f"{c.run_final:.4g}"
    yield f"Final {c.measure}: {final}" + ("" if c.baseline_final is None else f" (baseline: {c.baseline_final:.4g})")
    yield "Loss gap: " + _gap(c.at_equal_steps, "at equal steps", ",.0f", "")
    yield "  " + _gap(c.at_equal_backward_passes, "at equal backward passes", ",.0f", "")
    yield "  " + _gap(c.at_equal_seconds, "at equal time in steps", ".1f", " s")
    yield _cost(c.equal_loss)
    for note in c.notes:
        yield f"  note: {note}"


def _gap(gap: Gap | None, where: str, form: str, unit: str) -> str:
    if gap is None:
        return f"not measured {where} (no loss of both was measured there)"
    return f"{gap.gap:+.1%} {where} ({gap.at:{form}}{unit}: {gap.run:.4g} vs {gap.baseline:.4g})"


def _cost(equal: EqualLoss | None) -> str:
    if equal is None:
        return "Cost to equal loss: not measured"
    begin = f"Cost to the baseline's final loss ({equal.loss:.4g}): "
    if equal.run is None:
        return f"{begin}never reached; baseline: {_paid(equal.baseline)}"
    fewer = "" if equal.backward_reduction is None else f"; {equal.backward_reduction:.0%} fewer backward passes"
    faster = "" if equal.speedup is None else f", {equal.speedup:.1f}x in time"
    return f"{begin}{_paid(equal.run)} (baseline: {_paid(equal.baseline)}{fewer}{faster})"


def _paid(cost: Cost) -> str:
    return f"{cost.backward_passes:,} backward passes, {cost.seconds:.1f} s"


def _account(ledger: Ledger, saves: bool) -> Iterator[str]:
    """``saves``: it is a run that could."""
    heading = f"Ledger ({ledger.charged_seconds:.2f} s charged):"
    yield heading
    yield "─" * len(heading)
    yield f"Backward passes skipped: {ledger.backward_skipped:,}" + _per_attempt(ledger)
    for phase in Phase:
        cost = ledger.phases[phase]
        if cost.steps or cost.predicted:
            moved = f" + {cost.predicted:,} moved" if cost.predicted else ""
            yield (
                f"{phase.value}: {cost.seconds:.2f} s | {cost.steps:,} steps{moved} | {cost.backward_passes:,} backward"
                f" passes | watching {cost.observing_seconds:.2f} s{_training(cost.training_seconds)}"
            )
    p = ledger.prediction
    yield (
        f"Prediction: {p.total:.2f} s | probes {p.probes:.2f} | snapshots {p.snapshots:.2f} | moves {p.moves:.2f}"
        f" | corrections {p.corrections:.2f} | verdicts {p.verdicts:.2f} | rollbacks {p.rollbacks:.2f}"
    )
    u, a = ledger.undone, ledger.abandoned
    yield f"Of it undone: {u.predictions} predictions, {u.steps:,} steps, {u.seconds:.2f} s"
    yield f"Of it abandoned: {a.steps:,} steps, {a.backward_passes:,} backward passes, {a.seconds:.2f} s"
    if ledger.saved is not None and saves:
        s = ledger.saved
        costs = f"- {s.costs_seconds:.2f} s of costs"
        if s.costs_seconds < 0:
            costs = f"+ {-s.costs_seconds:.2f} s by which the other steps were faster than the baseline's"
        yield (
            f"Time saved: {s.net_seconds:.2f} s net ({_BASIS[s.basis]}) = {s.gross_seconds:.2f} s of skipped backward"
            f" passes {costs}"
        )
    yield f"Not charged: validation {ledger.validation_seconds:.2f} s, checkpoints {ledger.checkpoint_seconds:.2f} s"


def _training(seconds: float) -> str:
    return f" (training the predictor {seconds:.2f})" if seconds > 0 else ""


def _per_attempt(ledger: Ledger) -> str:
    if len(ledger.attempts) < 2:
        return ""
    parts = [f"attempt {a.attempt}: {a.backward_skipped:,}" for a in ledger.attempts]
    return f" ({', '.join(parts)}; abandoned steps count in theirs)"
