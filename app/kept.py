"""Records that pages want one by one, in bounded memory where they come with every cycle. Knows no drawing."""

from trainer_core.spec.records import (
    AlertRaised,
    AlertResolved,
    Annotated,
    AttemptStarted,
    CalibrationMeasured,
    Checklist,
    CheckpointSaved,
    CheckpointSkipped,
    CommandChanged,
    CorrectionApplied,
    KnobDeclared,
    Lost,
    PhaseChanged,
    PredictionEnded,
    PredictionProbed,
    ProgressCompared,
    Row,
    RunEnvironment,
    RunStarted,
    RunState,
    ValidationMeasured,
)

KEPT = (
    RunStarted, RunState, PhaseChanged, PredictionEnded, AlertRaised, AlertResolved, CommandChanged, CheckpointSaved,
    AttemptStarted, ValidationMeasured, Annotated, Checklist, ProgressCompared, KnobDeclared, PredictionProbed,
    CorrectionApplied, CalibrationMeasured, CheckpointSkipped, Lost, RunEnvironment,
)  # fmt: skip
"""Records kept one by one; steps and stretches become columns, of Explained the last one is kept."""
NEWEST: dict[type, int] = {
    PredictionProbed: 4096, PhaseChanged: 512, Checklist: 512, CorrectionApplied: 512, ProgressCompared: 64,
    CalibrationMeasured: 64,
}  # fmt: skip
"""Of kinds that come with every cycle so many of the newest are kept, and the FIRST: no page looks further back."""
FIRST = 64


class Kept:
    """Takes rows in their order."""

    def __init__(self) -> None:
        self._rows: dict[type, list[Row]] = {kind: [] for kind in KEPT}
        self._frozen: dict[type, tuple[Row, ...]] = {}

    def add(self, row: Row) -> bool:
        """Keep one row; whether it is of a kind that is kept."""
        kind = type(row.record)
        rows = self._rows.get(kind)
        if rows is None:
            return False
        rows.append(row)
        most = NEWEST.get(kind)
        if most is not None and len(rows) > FIRST + 2 * most:
            del rows[FIRST:-most]
        self._frozen.pop(kind, None)
        return True

    def frozen(self) -> dict[type, tuple[Row, ...]]:
        """What is kept now, oldest first."""
        for kind in self._rows.keys() - self._frozen.keys():
            self._frozen[kind] = tuple(self._rows[kind])
        return dict(self._frozen)
