"""A comparison with a plain baseline as a table to read. Pure."""

from app.views import words
from trainer_core.telemetry.comparison import Comparison, Gap

Rows = list[tuple[str, str, str, str]]
HEAD = ("", "This run", "Baseline", "Difference")


def table(found: Comparison) -> Rows:
    """(what, this run, baseline, difference), everything measured on both runs."""
    rows: Rows = []
    if found.equal_loss is not None:
        equal = found.equal_loss
        what = f"until {found.measure} {words.number(equal.loss)}"
        if equal.run is None:
            rows.append((f"Cost {what}", "never reached", "reached", "the baseline's last loss was not reached"))
        else:
            fewer = equal.backward_reduction
            rows += [
                (f"Time {what}", words.duration(equal.run.seconds), words.duration(equal.baseline.seconds),
                 f"{equal.speedup:.2f}x" if equal.speedup is not None else words.ABSENT),
                (f"Backward passes {what}", words.count(equal.run.backward_passes),
                 words.count(equal.baseline.backward_passes),
                 f"{fewer:.0%} fewer" if fewer is not None and fewer >= 0 else
                 f"{-fewer:.0%} more" if fewer is not None else words.ABSENT),
            ]  # fmt: skip
    for gap, where in (
        (found.at_equal_seconds, "s"),
        (found.at_equal_backward_passes, "backward passes"),
        (found.at_equal_steps, "steps"),
    ):
        if gap is not None:
            rows.append(_gap(found.measure, gap, where))
    return rows


def _gap(measure: str, gap: Gap, where: str) -> tuple[str, str, str, str]:
    better = "lower" if gap.gap < 0 else "higher"
    at = f"{gap.at:,.1f}" if where == "s" else f"{gap.at:,.0f}"
    said = "the same" if gap.gap == 0 else f"{abs(gap.gap):.1%} {better}"
    return f"{measure.capitalize()} at {at} {where}", words.number(gap.run), words.number(gap.baseline), said


def headline(found: Comparison) -> str:
    """Whether prediction paid, in one sentence."""
    equal = found.equal_loss
    if equal is None:
        return "Neither run has measured enough to be compared yet."
    if equal.run is None or equal.speedup is None:
        return f"This run has not reached the baseline's last {found.measure} of {words.number(equal.loss)}."
    word = "faster" if equal.speedup >= 1 else "slower"
    ratio = equal.speedup if equal.speedup >= 1 else 1 / equal.speedup
    return f"This run reached the baseline's last {found.measure} {ratio:.2f} times {word}, counting all its own costs."
