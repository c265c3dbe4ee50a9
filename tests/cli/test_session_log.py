"""The text report: the document's format, measured values only."""

from syrupy.assertion import SnapshotAssertion

from tests.cli.rows import changed, measured, numbered, one_cycle
from trainer_core.cli.session_log import STEPS_SHOWN, session_log
from trainer_core.spec.phases import Phase
from trainer_core.telemetry.report import report


def test_the_log_of_a_small_run_reads_as_the_documents_appendix(snapshot: SnapshotAssertion) -> None:
    rows = one_cycle()
    assert session_log(rows, report(rows)) == snapshot


def test_a_long_phase_is_shown_by_its_first_and_last_steps() -> None:
    rows = list(numbered([(float(s), 0, measured(s, Phase.WARMUP, 1.0, s)) for s in range(1, 1001)]))
    lines = [line for line in session_log(rows, report(rows)).splitlines() if line.startswith("Step ") and "|" in line]
    assert len(lines) == STEPS_SHOWN
    assert lines[0].startswith("Step    1 |") and lines[-1].startswith("Step 1000 |")


def test_many_cycles_are_counted_not_printed_unless_all_are_wanted() -> None:
    records = []
    for cycle in range(40):
        step = 2 * cycle + 1
        records += [
            (0.0, 0, changed(step, Phase.CORRECT, Phase.FULL, "x")),
            (0.0, 0, measured(step, Phase.FULL, 1.0, step)),
            (0.0, 0, changed(step + 1, Phase.FULL, Phase.PREDICT, "x")),
            (0.0, 0, measured(step + 1, Phase.PREDICT, 1.0, step)),
        ]
    rows = list(numbered(records))
    short, long = session_log(rows, report(rows)), session_log(rows, report(rows), everything=True)
    assert "[66 more phases; --all prints them]" in short
    assert "more phases" not in long and long.count("FULL TRAIN") == 40


def test_a_loss_that_is_not_a_number_is_printed_as_such() -> None:
    rows = list(numbered([(0.0, 0, measured(1, Phase.PREDICT, float("nan"), 1, predicted_loss=1.0))]))
    said = session_log(rows, report(rows))
    assert "Loss: nan" in said and "Δ" not in said
    assert "Loss gap: not measured (no baseline run)" in said
