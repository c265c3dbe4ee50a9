"""The Compare page: runs beside one another."""

from collections.abc import Callable

from app.figures import compare as figures
from app.figures import strip
from app.figures.spec import Figure, Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.views.compare import AXES, differences, row
from app.views.series import Look

HEAD = ("Run", "State", "Task", "Step", "Loss (EMA)", "Best validation", "At work", "Backward passes", "Saved",
        "Predictions")  # fmt: skip
MOST_SETTINGS = 60


def html() -> str:
    """Everything but the values."""
    measures = [
        blocks.columns(*(blocks.chart(f"{measured}_{axis}", size="small") for axis in AXES), kind="three")
        for measured in ("validation", "training")
    ]
    return blocks.page(
        strip.html(),
        blocks.card("Runs", blocks.live_table("cmp.runs", HEAD, "No run has been chosen.")),
        _tools(),
        *measures,
        blocks.columns(
            blocks.chart("phase_shares", size="small"),
            blocks.card(
                "What differs",
                blocks.live_table(
                    "cmp.settings", ("Setting", "Values, in the order of the runs"), "Nothing: the same settings."
                ),
            ),
        ),
    )


def _tools() -> str:
    return (
        '<div class="hy-tools" role="toolbar" aria-label="Charts">'
        f"{blocks.LOOK}"
        "<span>time at work leaves out pauses: more than 10 s, and than 20 usual steps</span></div>"
    )


def lists(moment: Moment) -> Lists:
    """The run table and the settings that differ."""
    runs = moment.runs
    table: list[Json] = [
        {"cells": row(run), "tone": "", "swatch": f"run_{run.colour}", "eye": run.name} for run in runs
    ]
    settings: list[Json] = [
        {"cells": [name, " · ".join(value or "–" for value in values)], "tone": ""}
        for name, values in differences(runs)[:MOST_SETTINGS]
    ]
    return {"cmp.runs": table, "cmp.settings": settings}


def _losses(measured: str, axis: str) -> Callable[[Moment, Look], Figure]:
    return lambda moment, look: figures.losses(moment.runs, axis, measured, look.log, look.smooth)


PAGE = LivePage(
    "compare",
    html,
    lists=lists,
    figures={
        **{f"{measured}_{axis}": _losses(measured, axis) for measured in ("validation", "training") for axis in AXES},
        "phase_shares": lambda moment, _look: figures.phase_shares(moment.runs),
    },
)
