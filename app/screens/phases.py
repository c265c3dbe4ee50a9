"""The Phases page: the document's four phase diagrams and its state machine, live. Lays out only."""

import math

from app.figures import machine as machine_figure
from app.figures import phases_charts as charts
from app.figures import strip
from app.figures.lifecycle import Binds
from app.figures.spec import Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.store import Snapshot
from app.theme import phase_token
from app.views import words
from app.views.lifecycle import OWN_LOOP
from app.views.phases_all import phases
from app.views.phases_cost import Cost
from app.views.phases_full import Part
from app.views.phases_why import Line, why
from trainer_core.spec.phases import TRAITS, Phase

LOOK_HEAD = ("Step", "Ahead", "Loss", "Gain", "z", "Confidence", "Outcome")
PREDICTION_HEAD = ("Ended at", "Steps", "Confidence", "Loss, same batch", "Mean error", "Verdict", "Why")
CORRECTION_HEAD = ("Step", "History", "Similar", "Norm", "Gain", "Correction", "Prediction")


def html() -> str:
    """Everything but the values."""
    return blocks.page(
        strip.html(),
        f'<div class="hy-own" data-on="pm.own">{_own_loop()}</div>',
        '<div class="hy-phased">',
        *(_head(), blocks.toolbar(), _warmup(), _full(), _predict(), _correct(), _trust()),
        "</div>",
    )


def _own_loop() -> str:
    elsewhere = "Loss, gradients and your own metrics are on the Live and Health pages."
    return blocks.card("No phases", f"<p>{blocks.text(OWN_LOOP)}</p>", note=elsewhere)


def _head() -> str:
    why_ = (
        '<section class="hy-card hy-why"><h3 data-bind="why.title"></h3>'
        f"{blocks.bound('why.answer', 'p', 'hy-answer')}{blocks.bound('why.more', 'p', 'hy-note')}"
        f"{blocks.listing('why.lines', 'Nothing to ask yet.', kind='guards')}"
        f"{blocks.bound('why.asked', 'p', 'hy-note')}</section>"
    )
    scrolled = '<div class="hy-scroll" tabindex="0" role="region" aria-label="State machine">'
    signs = "✓ holds · ○ does not · – not asked · the first row whose guards all hold is taken"
    diagram = (
        f'<section class="hy-card"><h3>State machine <small>{signs}</small></h3>{scrolled}{machine_figure.svg()}</div>'
        f"{blocks.bound('pm.cause', 'p', 'hy-cause')}</section>"
    )
    return why_ + diagram


def _section(phase: Phase, *parts: str) -> str:
    key = phase.value.lower()
    head = (
        f'<header class="hy-phasehead"><h2>{blocks.chip(phase)}{phase.value}</h2><span>{TRAITS[phase].purpose}</span>'
        f'<em data-on="pm.{phase.value}.on">now</em>{blocks.bound(f"{key}.said", "small")}</header>'
    )
    return (
        f'<section class="hy-phasebox" data-on="pm.{phase.value}.on" data-phase="{phase.value}">'
        f'{head}<div class="hy-body" data-on="{key}.begun">{"".join(parts)}</div></section>'
    )


def _legend(*phases_: Phase) -> str:
    """What the points of a chart are; the sign beside the colour is read by eye only, the word by everybody."""
    keys = "".join(
        f'<span class="hy-key"><b aria-hidden="true" style="color: var(--hy-{phase_token(phase)})">'
        f"{charts.SIGNS[phase]}</b>{phase.value.lower()}</span>"
        for phase in phases_
    )
    return f'<div class="hy-legend">{keys}</div>'


def _warmup() -> str:
    head = ("", "Mean", "Deviation", "Lowest", "Highest")
    statistics = [
        [name, *(blocks.bound(f"warmup.{signal}_{of}") for of in ("mean", "std", "min", "max"))]
        for name, signal in (("Loss", "loss"), ("Gradient norm", "norm"))
    ]
    facts = blocks.facts(
        ("Loss variance", "warmup.loss_var"), ("Loss turns back", "warmup.turns"), ("Learning rate", "warmup.rate")
    )
    checks = blocks.listing("warmup.checks", "Asked after the first step.", kind="checks")
    return _section(
        Phase.WARMUP,
        blocks.columns(
            blocks.chart("warmup_loss"),
            blocks.chart("warmup_gradient"),
            blocks.card("Established and collected", checks, blocks.table(head, statistics), facts),
            kind="three",
        ),
    )


def _full() -> str:
    facts = blocks.facts(
        ("Confidence", "full.confidence"), ("Next look in", "full.needed"), ("Residual error", "full.error"),
        ("Residuals", "full.residuals"), ("Refusals", "full.refusals"),
    )  # fmt: skip
    clock = blocks.bound("full.clock", "p", "hy-note")
    bars = blocks.listing("full.compute", "No step of FULL has been measured.", kind="bars")
    return _section(
        Phase.FULL,
        blocks.columns(
            blocks.card("Compute of a full step", bars, clock, facts, bound="full.compute_of"),
            blocks.chart("residual_error", _legend(Phase.WARMUP, Phase.FULL, Phase.CORRECT)),
        ),
        blocks.card(
            "Looks at a prediction",
            blocks.live_table("full.looks", LOOK_HEAD, "No prediction has been looked at yet."),
            note="A proposal is tried on one batch and put back: is the loss lower there?",
        ),
    )


def _predict() -> str:
    bars = blocks.listing("predict.cost", "No step of FULL has been measured.", kind="bars")
    facts = blocks.facts(
        ("Kept", "predict.kept"), ("Undone", "predict.undone"), ("Kept share", "predict.kept_share"),
        ("Mean length", "predict.length"), ("Of all steps", "predict.share"),
    )  # fmt: skip
    exits = blocks.listing("predict.exits", "No prediction has been tried yet.", kind="guards")
    return _section(
        Phase.PREDICT,
        blocks.columns(
            blocks.chart("prediction", _legend(Phase.FULL, Phase.PREDICT, Phase.CORRECT)),
            blocks.card("Exit conditions", exits, bound="predict.exits_said"),
        ),
        blocks.columns(
            blocks.card(
                "Compute of a step", bars, blocks.bound("predict.cost_said", "p", "hy-answer"), facts,
                note="Blue: a full step. Green: a predicted step, with the looks, copies and verdicts behind it.",
            ),
            blocks.chart("prediction_confidence"),
        ),
        blocks.card(
            "Verdicts",
            '<p data-tone="predict.verdict_tone" class="hy-answer hy-toned" data-bind="predict.verdict"></p>',
            blocks.live_table("predict.table", PREDICTION_HEAD, "No prediction has ended yet."),
        ),
    )  # fmt: skip


def _correct() -> str:
    facts = blocks.facts(
        ("History", "correct.history"), ("Similar", "correct.similar"), ("Weighted", "correct.weighted"),
        ("Norm", "correct.magnitude"), ("Loss gain", "correct.gain"),
    )  # fmt: skip
    limits = f'<p class="hy-note">{blocks.bound("correct.limit")} · {blocks.bound("correct.top")}</p>'
    weights = blocks.listing("correct.weights", "No residual has been weighed yet.", kind="bars")
    return _section(
        Phase.CORRECT,
        blocks.columns(
            blocks.card("Residual selection", facts, limits, weights),
            blocks.card(
                "Application and validation",
                blocks.bound("correct.formula", "p", "hy-formula"),
                blocks.bound("correct.sums", "p", "hy-note"),
                '<p class="hy-answer hy-toned" data-tone="correct.result_tone" data-bind="correct.result"></p>',
                blocks.bound("correct.validation", "p"),
            ),
        ),
        blocks.card(
            "Corrections",
            blocks.live_table("correct.table", CORRECTION_HEAD, "No correction yet."),
        ),
    )


def _trust() -> str:
    facts = blocks.facts(("Outcomes", "trust.outcomes"), ("Brier score", "trust.brier"))
    said = blocks.bound("trust.said", "p", "hy-answer")
    inside = blocks.columns(blocks.chart("reliability"), blocks.card("What it says", said, facts))
    head = '<header class="hy-phasehead"><h2>Is the confidence honest?</h2>' + blocks.bound("trust.none", "small")
    return (
        f'<section class="hy-trust">{head}</header><div class="hy-body" data-on="trust.begun">{inside}</div></section>'
    )


def binds(moment: Moment) -> Binds:
    """All values of the page."""
    seen = phases(moment.snapshot)
    head = why(moment.snapshot, moment.status.state, seen.machine, seen.config)
    warm, whole, flown, mended, trusted = seen.warmup, seen.full, seen.predict, seen.correct, seen.trust
    return {
        "pm.own": moment.snapshot.own_loop,
        "pm.cause": seen.life.cause,
        **{f"{phase.value.lower()}.begun": _begun(moment.snapshot, phase) for phase in Phase},
        **machine_figure.binds(seen.machine, seen.life),
        **_keyed("why", {"title": head.title, "answer": head.answer, "more": head.more, "asked": head.asked}),
        **_keyed("warmup", {"said": warm.progress, **warm.facts}),
        **_keyed("full", {"said": whole.said, "compute_of": whole.compute_of, "clock": whole.clock, **whole.facts}),
        **_keyed("predict", {"said": flown.said, "cost_said": flown.cost.said, "exits_said": flown.exits_said}),
        **_keyed("predict", {"verdict": flown.verdict, "verdict_tone": flown.verdict_tone, **flown.facts}),
        **_keyed("correct", {"said": mended.said, "formula": mended.formula, "sums": mended.sums, **mended.facts}),
        **_keyed("correct", {"result": mended.result, "result_tone": mended.result_tone}),
        "correct.validation": mended.validation,
        "trust.begun": bool(trusted.tenths),
        "trust.none": "" if trusted.tenths else trusted.said,
        "trust.said": trusted.said,
        "trust.outcomes": words.count(trusted.outcomes),
        "trust.brier": words.number(trusted.brier),
    }


def lists(moment: Moment) -> Lists:
    """All lists of the page."""
    seen = phases(moment.snapshot)
    head = why(moment.snapshot, moment.status.state, seen.machine, seen.config)
    return {
        "why.lines": [_guard(line) for line in head.lines],
        "warmup.checks": [_guard(line) for line in seen.warmup.checks],
        "full.compute": [_bar(part, Phase.FULL) for part in seen.full.compute],
        "full.looks": [{"cells": list(cells), "tone": ""} for cells in seen.full.looks],
        "predict.cost": _costs(seen.predict.cost),
        "predict.exits": [_guard(line) for line in seen.predict.exits],
        "predict.table": [{"cells": list(cells), "tone": tone} for cells, tone in seen.predict.table],
        "correct.weights": [
            {"label": weight.label, "share": _length(weight.share), "value": weight.value, "phase": Phase.CORRECT.value}
            for weight in seen.correct.weights
        ],
        "correct.table": [{"cells": list(cells), "tone": tone} for cells, tone in seen.correct.table],
    }


def _begun(snapshot: Snapshot, phase: Phase) -> bool:
    """Whether there is anything to show of a phase; its heading says so where there is not."""
    tally = snapshot.tallies[phase]
    return tally.entered > 0 or tally.steps > 0 or snapshot.phase is phase


def _keyed(prefix: str, facts: dict[str, str]) -> Binds:
    return {f"{prefix}.{key}": value for key, value in facts.items()}


def _guard(line: Line) -> Json:
    return {"met": line.holds, "text": line.text, "detail": line.detail}


def _costs(cost: Cost) -> list[Json]:
    full_steps = [_bar(part, Phase.FULL, "full: ") for part in cost.full]
    return full_steps + [_bar(part, Phase.PREDICT, "predicted: ") for part in cost.predicted]


def _length(share: float) -> float:
    """Of a bar; none of what is no number."""
    return share if math.isfinite(share) else 0.0


def _bar(part: Part, phase: Phase, before: str = "") -> Json:
    if part.skipped:
        value = "SKIPPED"
    elif part.seconds is None:
        value = "not run"
    else:
        value = f"{words.number(1000 * part.seconds)} ms · {part.share:.0%}"
    shown = {"label": before + part.label, "share": round(_length(part.share), 3), "value": value, "phase": phase.value}
    return {**shown, "skipped": True} if part.skipped else shown


PAGE = LivePage(
    "phases",
    html,
    binds,
    lists,
    figures={
        "warmup_loss": lambda m, _: charts.warmup_loss(m.snapshot, phases(m.snapshot).warmup),
        "warmup_gradient": lambda m, _: charts.warmup_gradient(m.snapshot, phases(m.snapshot).warmup),
        "residual_error": lambda m, look: charts.residual_error(m.snapshot, look),
        "prediction": lambda m, _: charts.prediction(m.snapshot, phases(m.snapshot).predict.flight),
        "prediction_confidence": lambda m, _: charts.prediction_confidence(m.snapshot, phases(m.snapshot)),
        "reliability": lambda m, _: charts.reliability(phases(m.snapshot).trust),
    },
)
