"""The Health page: warning signs, gradients, learning rate, losses, checklists, machine, metrics. Lays out only."""

from collections.abc import Callable

from app.figures import gradient, health_layers, health_losses, health_machine, health_rate, strip
from app.figures.health_signals import signal
from app.figures.health_signs import DIAGRAMS, Sign
from app.figures.lifecycle import Binds
from app.figures.spec import Figure, Json
from app.screens import blocks
from app.screens.page import Lists, LivePage, Moment
from app.theme import ICON
from app.views import health_checks, health_curve, health_signs
from app.views import health_layers as layers
from app.views import health_machine as machine
from app.views import health_rate as rate
from app.views.health_flags import flag, lives
from app.views.health_signs import SIGNS, signs
from app.views.series import Look
from trainer_core.spec.config import Config
from trainer_core.spec.ladders import ladders

FLAGS: dict[str, tuple[str, ...]] = {
    "gradient": ("gradient norm", "gradient explosion", "gradient vanishing"),
    "layer_heat": ("layer gradient explosion", "dead layers", "layer gradient vanishing"),
    "grad_ratio": ("gradient/parameter ratio high", "gradient/parameter ratio low"),
    "grad_variance": ("gradient variance",),
    "learning_rate": ("learning rate too low",),
    "validation": ("overfitting", "validation gap", "underfitting"),
    "curve": ("not finite", "loss deviation", "loss above its start", "plateau", "oscillation"),
    "sys_memory": ("host memory nearly full",),
    "sys_disk": ("disk nearly full",),
    "sys_heat": ("GPU temperature",),
}
"""Charts that have alerts of their own; the worst open one stands beside the chart."""
LEGENDS = {
    "learning_rate": blocks.legend(
        blocks.key(blocks.stroke("accent"), "applied", "applied", "alone"),
        blocks.key(blocks.stroke("accent", "dotted"), "to come", "ahead"),
        blocks.key(blocks.stroke("faint", "dashed"), "planned", "planned"),
    ),
    "validation": blocks.legend(
        blocks.key(blocks.stroke("measured"), "training, smoothed", "faint", "smooth", "alone"),
        blocks.key(blocks.stroke("accent", "dashed"), "validation", "validation"),
    ),
    "curve": blocks.legend(
        blocks.key(blocks.stroke("measured"), "measured, smoothed", "faint", "smooth", "alone"),
        blocks.key(blocks.stroke("phase_predict", "dashed"), "predicted ± 5 %", "predicted", "close"),
    ),
}
MACHINE = ("sys_cpu", "sys_memory", "sys_process", "sys_disk", "sys_gpu", "sys_heat")
OF_GPUS = ("sys_gpu", "sys_heat")
"""Shown where there is a GPU that was read."""
METRICS = 24
OWN_LOOP = (
    "This is a loop of its own that a Monitor watches: it has no phases and no checklists, tells no norms by layer, "
    "and its schedule is its own."
)


def html() -> str:
    """Everything but the values."""
    return blocks.page(
        strip.html(),
        '<p class="hy-note" data-bind="health.own_loop"></p>',
        blocks.heading("Warning signs", "each lights up when its alert fires; open one to see its diagram"),
        f'<div class="hy-signs">{"".join(_sign(sign) for sign in SIGNS)}</div>',
        blocks.toolbar(),
        blocks.heading("Gradients"),
        blocks.columns(
            _chart("gradient"),
            blocks.card(
                "What each zone means",
                blocks.live_table(
                    "health.zones", ("Zone", "Gradient norm", "Status", "Action"), "No limits known yet."
                ),
                bound="health.norm",
            ),
            kind="two",
        ),
        _when("health.layers", blocks.columns(_chart("layer_heat", "tall"), _chart("layer_bars", "tall"), kind="two")),
        blocks.columns(
            _chart("grad_ratio", "small"), _chart("grad_variance", "small"), _chart("grad_noise", "small"), kind="three"
        ),
        blocks.heading("Learning rate and losses"),
        blocks.columns(_chart("learning_rate"), _chart("validation")),
        blocks.columns(
            _chart("curve"),
            blocks.card(
                "A healthy curve",
                blocks.listing("health.curve", "Nothing measured yet.", kind="checks"),
                note="What the document calls healthy, over the last 1,000 measured steps.",
            ),
            kind="two",
        ),
        _when(
            "health.checked",
            blocks.heading("Checklists", "with the numbers of the last time each was gone through"),
            blocks.columns(*(_checklist(i, name) for i, name in enumerate(health_checks.NAMES)), kind="three"),
            blocks.card(
                "If a check fails",
                blocks.listing("health.fails", "", kind="lines"),
                _goto("Control", "Pause, rates and roll back are on Control"),
                bound="health.failing",
            ),
        ),
        blocks.heading("Machine"),
        f'<div class="hy-metrics hy-four">{"".join(_machine(name) for name in MACHINE)}</div>',
        blocks.card(
            "Where this run comes from",
            blocks.live_table("health.environment", ("What", "Value"), "The run has not said where it comes from."),
            bound="health.reading",
        ),
        blocks.heading("Metrics of your own", "what the training script reports by name"),
        '<p class="hy-note" data-bind="health.metrics"></p>',
        f'<div class="hy-metrics">{"".join(_metric(i) for i in range(METRICS))}</div>',
    )


def _chart(name: str, size: str = "") -> str:
    """A chart, with what its lines are, and the standing of its alerts where it has any."""
    beside = LEGENDS.get(
        name, ""
    ) + f'<span class="hy-flag" data-tone="flag.{name}.tone" data-bind="flag.{name}"></span>' * (name in FLAGS)
    return blocks.chart(name, beside, size)


def _when(key: str, *parts: str) -> str:
    """Parts that are shown where they mean something."""
    return f'<div class="hy-ifany" data-on="{key}">{"".join(parts)}</div>'


def _machine(name: str) -> str:
    chart = _chart(name, "small")
    return f'<div class="hy-metric" data-on="machine.gpu">{chart}</div>' if name in OF_GPUS else chart


def _sign(sign: health_signs.Sign) -> str:
    """One warning sign: a line, and under it the diagram with symptoms, causes and the fix."""
    key = f"sign.{sign.key}"
    told = [
        ("Symptoms", sign.symptoms),
        ("Likely causes", sign.causes),
        ("Remedy", sign.remedy or "none while training runs"),
    ]
    told += [("Next run", sign.advice)] * bool(sign.advice)
    words = "".join(f"<dt>{name}</dt><dd>{blocks.text(what)}</dd>" for name, what in told)
    return (
        f'<section class="hy-card hy-sign" data-on="{key}.lit" data-tone="{key}.tone">'
        f'<label class="hy-signhead"><input type="checkbox" aria-label="Show {blocks.text(sign.title)}">'
        f'<span class="hy-icon" data-bind="{key}.icon"></span><b>{blocks.text(sign.title)}</b></label>'
        f'<p class="hy-signline" data-bind="{key}.line"></p><div class="hy-signbody">'
        f'<div class="hy-chart" data-figure="sign_{sign.key}"><header><h3></h3><small></small></header>'
        '<div class="hy-plot hy-plot-small"></div></div>'
        f'<dl>{words}</dl><p class="hy-signfix" data-bind="{key}.fix"></p>'
        f"{_remedy(sign)}{_goto('Alerts', 'Its alert')}</div></section>"
    )


def _remedy(sign: health_signs.Sign) -> str:
    """The button of its remedy while the sign is lit; of one without a remedy the page where something can be done."""
    if sign.remedy_name is None:
        return _goto("Control", "Act on Control")
    return blocks.remedy(sign.remedy_name, "hy-goto hy-remedy")


def _goto(page: str, words: str) -> str:
    """A button that opens another page for the same run."""
    return f'<button type="button" class="hy-goto" data-goto="{page}">{blocks.text(words)}</button>'


def _checklist(i: int, name: str) -> str:
    empty = {"before training": "Due after the first step.", "warmup": "Due when warmup ends."}.get(
        name, "Due every 100 steps."
    )
    return blocks.card(
        name.capitalize(), blocks.listing(f"health.check_{i}", empty, kind="checks"), bound=f"health.check_{i}.at"
    )


def _metric(i: int) -> str:
    return f'<div class="hy-metric" data-on="metric.{i}.on">{blocks.chart(f"metric_{i}", size="small")}</div>'


def binds(moment: Moment) -> Binds:
    """Signs, flags, the live zone, the machine's newest reading, which metric slots are in use."""
    snapshot, config = moment.snapshot, moment.config
    values: Binds = {
        "health.own_loop": OWN_LOOP if snapshot.own_loop else "",
        "health.layers": not (snapshot.own_loop and snapshot.side.layers.empty),
        "health.checked": not snapshot.own_loop,
    }
    for standing in signs(snapshot, config):
        key = f"sign.{standing.sign.key}"
        values |= {
            f"{key}.lit": standing.lit,
            f"{key}.tone": standing.tone,
            f"{key}.icon": standing.icon,
            f"{key}.line": standing.line,
            f"{key}.fix": standing.fix,
        }
    found = lives(snapshot)
    for name, rules in FLAGS.items():
        shown = flag(found, rules)
        values |= {f"flag.{name}": shown.text, f"flag.{name}.tone": shown.tone}
    norm = health_checks.last_norm(snapshot)
    failing = health_checks.failing(snapshot)
    values["health.norm"] = "no backward pass yet" if norm is None else f"now {norm:.3g}"
    values["health.failing"] = f"▲ now failing: {'; '.join(failing)}" if failing else "no check fails now"
    values["machine.gpu"] = bool(snapshot.side.newest and snapshot.side.newest.gpus)
    values["health.reading"] = " · ".join(machine.facts(snapshot).values())
    return values | _checked(moment) | _slots(moment)


def _checked(moment: Moment) -> Binds:
    values: Binds = {}
    for i, name in enumerate(health_checks.NAMES):
        held = health_checks.newest(moment.snapshot, name)
        met = sum(item.met is True for item in held.items) if held else 0
        values[f"health.check_{i}.at"] = (
            f"{met} of {len(held.items)} hold · step {held.step:,}" if held else "not due yet"
        )
    return values


def _metrics(moment: Moment) -> list[str]:
    """The names of the user's own metrics: chosen ones, then the others as they first came."""
    known = moment.snapshot.side.metrics
    first = [name for name in moment.first if name in known]
    return [*first, *(name for name in known if name not in first)]


def _slots(moment: Moment) -> Binds:
    names, left_out = _metrics(moment), moment.snapshot.side.left_out
    shown = min(len(names), METRICS)
    hidden = len(names) + left_out - shown
    said = f"{shown} metrics" + (f"; {hidden} more: choose below which come first" if hidden else "")
    values: Binds = {f"metric.{i}.on": i < len(names) for i in range(METRICS)}
    values["health.metrics"] = (
        said if names else "None yet. In a loop of your own: monitor.step(loss=..., f1=...); each name gets a chart."
    )
    return values


def lists(moment: Moment) -> Lists:
    """Zones, characteristics, checklists, environment."""
    snapshot, config = moment.snapshot, moment.config
    found: dict[str, list[Json]] = {
        "health.zones": [_zone(zone) for zone in health_checks.zones(snapshot, config)],
        "health.curve": [
            {"met": one.met, "text": one.text, "detail": one.detail}
            for one in health_curve.characteristics(snapshot, config)
        ],
        "health.fails": [
            {"text": text, "tone": "" if health_checks.failing(snapshot) else "muted"}
            for text in health_checks.IF_A_CHECK_FAILS
        ],
        "health.environment": [{"cells": [what, value], "tone": ""} for what, value in machine.environment(snapshot)],
    }
    for i, name in enumerate(health_checks.NAMES):
        held = health_checks.newest(snapshot, name)
        items = held.items if held else ()
        found[f"health.check_{i}"] = [{"met": item.met, "text": item.item, "detail": item.detail} for item in items]
    return found


def _zone(zone: health_checks.Zone) -> Json:
    name = f"▶ {zone.name}" if zone.here else zone.name
    cells = [name, zone.range_, f"{ICON[zone.severity]} {zone.status}", zone.action]
    return {"cells": cells, "tone": zone.severity.name.lower() if zone.here else ""}


Builder = Callable[[Moment, Look], Figure]


def _diagram(draw: Sign) -> Builder:
    return lambda moment, look: draw(moment.snapshot, look, moment.config or Config())


def _slot(i: int) -> Builder:
    def draw(moment: Moment, look: Look) -> Figure:
        names = _metrics(moment)
        return health_machine.metric(moment.snapshot, look, i, names[i] if i < len(names) else None)

    return draw


def _ratio(moment: Moment, look: Look) -> Figure:
    ladder = ladders(moment.config)["grad_param_ratio"] if moment.config else None
    return signal(moment.snapshot, look, "grad_ratio", "grad_param_ratio", "Gradient / parameter ratio", ladder=ladder,
                  log=True, ideal=1e-3)  # fmt: skip


def _variance(moment: Moment, look: Look) -> Figure:
    ladder = ladders(moment.config)["grad_variance"] if moment.config else None
    return signal(moment.snapshot, look, "grad_variance", "grad_variance", "Gradient variance", ladder=ladder,
                  log=True, note="high: larger batches or a lower rate")  # fmt: skip


def _noise(moment: Moment, look: Look) -> Figure:
    return signal(moment.snapshot, look, "grad_noise", "micro_grad_snr", "Gradient signal / noise", log=True,
                  note="below 1 noise rules",
                  unmeasured="needs two micro-batches or ranks")  # fmt: skip


PAGE = LivePage(
    "health",
    html,
    tables=lambda moment: (binds(moment), lists(moment)),
    figures={
        **{f"sign_{sign.key}": _diagram(DIAGRAMS[sign.key]) for sign in SIGNS},
        "gradient": lambda m, look: gradient.figure(gradient.view(m.snapshot, look, m.config), zones_whole=True),
        "layer_heat": lambda m, look: health_layers.heatmap(layers.view(m.snapshot, m.config, look.window)),
        "layer_bars": lambda m, _look: health_layers.bars(layers.view(m.snapshot, m.config)),
        "grad_ratio": _ratio,
        "grad_variance": _variance,
        "grad_noise": _noise,
        "learning_rate": lambda m, _look: health_rate.figure(rate.view(m.snapshot, m.config)),
        "validation": lambda m, look: health_losses.validation(m.snapshot, look),
        "curve": lambda m, look: health_losses.curve(m.snapshot, look),
        "sys_cpu": lambda m, _look: health_machine.cpu(m.snapshot),
        "sys_memory": lambda m, _look: health_machine.memory(m.snapshot, m.config),
        "sys_process": lambda m, _look: health_machine.process(m.snapshot),
        "sys_disk": lambda m, _look: health_machine.disk(m.snapshot, m.config),
        "sys_gpu": lambda m, _look: health_machine.gpu(m.snapshot),
        "sys_heat": lambda m, _look: health_machine.heat(m.snapshot, m.config),
        **{f"metric_{i}": _slot(i) for i in range(METRICS)},
    },
)
