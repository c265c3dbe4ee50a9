"""The forms of the Control page: each builds one command and sends it, or asks first. Computes nothing of training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from app import control, steering
from app.feed import Feed
from app.field import Field, Pressed, field
from app.figures import whatif as whatif_figure
from app.parts import part
from app.slider import slider, standing
from app.views import words
from app.views.changes import RATE, Change, applied, last_change, rate_now
from app.views.commands import COMPARED, STEERABLE, asks_first, expected_rev, state_rev
from app.views.knobs import KnobView
from app.views.measured import newest
from app.views.remedy import plan
from app.views.settings import LENGTHS, LiveSetting, notches, present_config
from app.views.strip import step_rate
from app.views.whatif import what_if
from app.watching import watch
from app.widgets import mode
from trainer_core.spec.commands import (
    Annotate,
    Command,
    ScaleLearningRate,
    SetGradientClip,
    SetKnob,
    SetLearningRate,
    SetPhaseLength,
    SetThreshold,
    SetWeightDecay,
)
from trainer_core.spec.phases import Phase
from trainer_core.spec.remedies import REMEDIES

TO_CONFIRM = "to_confirm"
"""Session key: (run, command id, command, revision seen) that its sender is asked about before it goes."""
SEEN_REV = "seen_rev"
"""Session key: the run's revision when the forms were drawn."""
REASON, AT_STEP, TTL = "how_reason", "how_at", "how_ttl"
ASKED = "remedy"
"""Key of the address: the remedy that is filled in."""
NO_RATE = "The loop tells no learning rate. One that gave its Monitor no optimizer refuses these."
EMERGENCY = ("nan_loss", "gradient_explosion", "divergence_loop", "low_confidence", "overfitting")
"""The document's emergency actions, in its order; other remedies follow."""


def how_panel(feed: Feed) -> None:
    """Reason, step and time to live of the next command; used once."""
    with st.container(key="how"):
        wide, at, ttl = st.columns([4, 2, 2])
        wide.text_input("Reason (recorded with the next command)", key=REASON, max_chars=200, placeholder="optional")
        step = at.number_input("At step (empty: at once)", 0, None, None, key=AT_STEP)
        ttl.number_input("Valid for (s)", 1, 86_400, 60, key=TTL, help="Not applied within this time, it expires.")
        last, rate = feed.snapshot().last, step_rate(feed.snapshot())
        if step is not None and last is not None and rate:
            seconds = (step - last.step) / rate
            if step <= last.step:
                st.warning(f"Step {step:,} has passed: such a command is refused. The run is at step {last.step:,}.")
            elif seconds > st.session_state[TTL]:
                st.warning(f"Step {step:,} is about {words.duration(seconds)} away: it would expire before.")


def told_how(reason: str) -> control.How:
    """What the panel says of the next command, whichever it is."""
    at = st.session_state.get(AT_STEP)
    return control.How(reason, int(at) if at is not None else None, float(st.session_state.get(TTL) or 60))


def used() -> None:
    """What was said of one command holds for no other."""
    for key, empty in ((REASON, ""), (AT_STEP, None)):
        if key in st.session_state:
            st.session_state[key] = empty


def press(
    run: str, command_id: str, build: Callable[[], Command], confirm: bool = False, seen: int | None = None
) -> None:
    """Callback of every form: send what ``build`` makes of the form's values, or ask first.

    ``seen`` is the run's revision that the form was showing; None: that of the page's last drawing.
    """
    feed = watch().feed(run)
    if feed is None:
        return
    command, snapshot = build(), feed.snapshot()
    if not confirm and steering.right().steers and asks_first(command, newest(snapshot, "learning_rate").value):
        st.session_state[TO_CONFIRM] = run, command_id, command, seen
        return
    sent = st.session_state.setdefault("sent", {})
    if seen is None:
        seen = st.session_state.get(SEEN_REV, state_rev(snapshot))
    rev = expected_rev(snapshot, seen, sent) if isinstance(command, COMPARED) else None
    how = replace(told_how(st.session_state.get(REASON, "")), expect_state_rev=rev)
    sent[command_id] = control.send(feed.run_dir, command_id, command, confirm=confirm, how=how)
    used()


def closed(feed: Feed) -> str:
    """Why nothing can be sent to this run from this page; empty: commands are sent."""
    mine = steering.right()
    if not mine.steers:
        return mine.why
    state = feed.status.state if feed.status is not None else STEERABLE[0]
    return "" if state in STEERABLE else f"This run is {state}: it takes no commands."


def command_button(feed: Feed, label: str, command: Command, *, key: str, help: str, icon: str = "") -> None:
    """A button that sends one command; its id is minted when the button is shown."""
    why = closed(feed)
    st.button(
        label, key=key, help=why or help, icon=icon or None, disabled=bool(why), on_click=press,
        args=(feed.run_dir.name, control.mint(), lambda: command),
    )  # fmt: skip


@part()
def setting_card(feed: Feed, live: LiveSetting) -> None:
    """A slider and a number for one setting, what its new value would have led to, and the button that sends it."""
    name, whole = live.setting.name, live.setting.type in ("int", "bool")
    key = f"setting_{feed.run_dir.name}_{name}"
    with st.container(border=True):
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        with left.container(key=f"card_{feed.run_dir.name}_{name}"):
            wanted = slider(key, live.title, notches(live), live.value, live.bounds, whole, live.setting.meaning)
        right.button(
            "Apply", key=f"apply_{name}", width="stretch", on_click=press,
            disabled=wanted == live.value or bool(closed(feed)),
            args=(feed.run_dir.name, control.mint(),
                  lambda: SetThreshold(name, standing(key, live.value, live.bounds, whole))),
        )  # fmt: skip
        if wanted == live.value:
            st.caption(f"In force: **{live.value:g}** · default {live.setting.default:g}. Move it to see what if.")
        else:
            _what_if(feed, name, wanted)


def _what_if(feed: Feed, name: str, wanted: float) -> None:
    config = present_config(feed.snapshot())
    found = what_if(feed.snapshot(), config, name, wanted) if config is not None else "The settings are not known yet."
    if isinstance(found, str):
        st.caption(found)
    else:
        st.html(whatif_figure.html(found, mode()))


def other_setting(feed: Feed, settings: Sequence[LiveSetting]) -> None:
    """Any other live setting, chosen by name; the address may name it (``?setting=``)."""
    named = {live.setting.name: live for live in settings}
    asked = st.query_params.get("setting", "")
    index = list(named).index(asked) if asked in named else 0
    chosen = st.selectbox(
        "Another setting",
        list(named),
        index=index,
        format_func=lambda name: f"{named[name].title}: {named[name].value:g}",
    )
    st.caption(named[chosen].setting.meaning)
    setting_card(feed, named[chosen])


def value_form(
    feed: Feed, key: str, shown: Field, build: Callable[[float], Command], change: Change | None = None
) -> None:
    """A number that follows the run until somebody types, and the button that sends a command made of it.

    ``change`` is what gave it its value; None: it is no setting of the run.
    """
    run, place = feed.run_dir.name, f"{key}_{feed.run_dir.name}"
    minted, last = f"{place}_id", f"{place}_last"
    if change is not None:
        mine = change.command_id in st.session_state.get("sent", {})
        sent = st.session_state.get(last, "")
        done = sent if applied(feed.snapshot(), sent) else ""
        shown = replace(shown, mark=change.seq, changed=change.said, mine=mine, done=done)

    def send(heard: Pressed) -> None:
        st.session_state[minted], st.session_state[last] = control.mint(), heard.command_id
        press(run, heard.command_id, lambda: build(heard.value), seen=heard.rev)

    with st.container(key=f"field_{place}", border=True):
        command_id = st.session_state.setdefault(minted, control.mint())
        field(f"{place}_value", shown, command_id, state_rev(feed.snapshot()), bool(closed(feed)), send)


@part(run_every=1.0)
def _rate_form(feed: Feed) -> None:
    """The learning rate, which moves by itself where there is a schedule."""
    snapshot = feed.snapshot()
    rate = rate_now(snapshot)
    said = f"now {rate:.4g}" if rate else "not measured yet"
    shown = Field(
        f"Learning rate ({said})", rate or 1e-3, (1e-12, 100.0),
        help="Scales the schedule so that it is this now; later steps keep the scale.",
    )  # fmt: skip
    value_form(feed, "rate", shown, SetLearningRate, last_change(snapshot, RATE))
    if TO_CONFIRM in st.session_state:  # the page asks, of which this is a part
        st.rerun()


def optimizer_forms(feed: Feed, phases: bool) -> None:
    """Learning rate and weight decay; the gradient clip where the trainer steps the optimizer itself (``phases``)."""
    snapshot = feed.snapshot()
    config = present_config(snapshot)
    left, right = st.columns(2)
    with left:
        _rate_form(feed)
        clip = config.optimizer.gradient_clip_norm if config else 0.0
        if phases:
            title = f"Gradient clip (now {f'{clip:g}' if clip else 'off'}; 0: off)"
            changed = last_change(snapshot, "gradient_clip_norm")
            value_form(feed, "clip", Field(title, clip, (0.0, 1e6)), SetGradientClip, changed)
    with right:
        value_form(
            feed, "factor",
            Field("Learning rate times", 0.5, (1e-6, 1e6), button="Scale",
                  help="Factors of ten and more, either way, are asked about first."),
            ScaleLearningRate,
        )  # fmt: skip
        decay = config.optimizer.weight_decay if config else 0.0
        untold = snapshot.own_loop and rate_now(snapshot) is None
        said = "not told" if untold else f"now {decay:g}"
        shown = Field(f"Weight decay ({said})", decay, (0.0, 10.0))
        value_form(feed, "decay", shown, SetWeightDecay, last_change(snapshot, "weight_decay"))
    if untold:
        st.caption(NO_RATE)


def length_form(feed: Feed) -> None:
    """The lengths of the phases that have one."""
    snapshot = feed.snapshot()
    config = present_config(snapshot)
    if config is None:
        return
    lengths = config.hybrid_trainer_config
    for column, (phase, name) in zip(st.columns(3), LENGTHS.items(), strict=True):
        shown = Field(f"{phase.letter} {phase.value}: at most, steps", getattr(lengths, name), (1, 10_000_000), True)
        with column:
            key = f"length_{phase.value.lower()}"
            value_form(feed, key, shown, partial(_length, phase), last_change(snapshot, name))
    if lengths.policy == "adaptive":
        st.caption("The adaptive policy chooses within these lengths; CORRECT takes one step there.")


def _length(phase: Phase, steps: float) -> Command:
    return SetPhaseLength(phase, int(steps))


@part()
def knob_form(feed: Feed, knob: KnobView) -> None:
    """A slider and a number between the bounds that the training script gave its knob."""
    key, bounds = f"knob_{feed.run_dir.name}_{knob.name}", (knob.low, knob.high)
    places = [knob.low + (knob.high - knob.low) * place / 100 for place in range(101)]
    with st.container(key=f"card_{key}", border=True):
        left, right = st.columns([3, 1], vertical_alignment="bottom")
        with left:
            wanted = slider(key, knob.label, places, knob.value, bounds, False, knob.meaning)
        right.button(
            "Apply", key=f"apply_{key}", width="stretch", on_click=press,
            disabled=wanted == knob.value or bool(closed(feed)),
            args=(feed.run_dir.name, control.mint(),
                  lambda: SetKnob(knob.name, standing(key, knob.value, bounds, False))),
        )  # fmt: skip
        st.caption(f"In force: **{knob.value:g}**")


def asked_remedy() -> str:
    """The remedy that the link which led here names (``?remedy=``); empty: none that there is."""
    asked = str(st.query_params.get(ASKED, ""))
    return asked if asked in REMEDIES else ""


def remedy_form(feed: Feed, ask: Callable[[Feed, str, Callable[[], object]], None]) -> None:
    """An emergency action, exactly what it would change now, and the button that asks; ``?remedy=`` prefills it."""
    names = [*EMERGENCY, *(name for name in REMEDIES if name not in EMERGENCY)]
    asked = asked_remedy()
    with st.container(border=True):
        name = st.selectbox("Problem", names, index=names.index(asked) if asked else 0, format_func=_problem)
        if asked and name == asked:
            st.info("Filled in by the button that led here. Nothing has been sent: press and confirm below.")
        found = plan(feed.snapshot(), name)
        if found is None:
            st.caption("The run has not told its settings yet.")
            return
        st.markdown(f"**{found.meaning}**")
        lines = [f"- {line.name}: {line.before} → **{line.after}**" for line in found.lines]
        st.markdown("\n".join(lines) or f"{found.nothing[:1].upper()}{found.nothing[1:]}.")
        if found.throws_away:
            st.caption(f"Throws away {found.throws_away}.")
        if found.against:
            st.warning(words.plain(f"Look first: {found.against}."), icon=":material/warning:")
        with st.container(horizontal=True, gap="small"):
            disabled = not found.lines or bool(closed(feed))
            if st.button("Apply all of it…", key="apply_remedy", icon=":material/emergency:", disabled=disabled,
                         type="primary" if asked else "secondary"):  # fmt: skip
                ask(feed, name, _set_aside)
            if asked:
                st.button("Set it aside", key="set_aside", on_click=_set_aside)


def _set_aside() -> None:
    """What a link filled in has been answered."""
    st.query_params.pop(ASKED, None)


def _problem(remedy: str) -> str:
    return remedy.replace("_", " ").capitalize().replace("Nan", "NaN")


def note_form(feed: Feed) -> None:
    """A note into the record, at the present step."""
    key = f"note_{feed.run_dir.name}"
    with st.form(f"form_{key}", border=True, clear_on_submit=True):
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        left.text_input("Note at the present step", key=key, max_chars=2000)
        right.form_submit_button(
            "Add", key="send_note", width="stretch", disabled=bool(closed(feed)), on_click=_note,
            args=(feed.run_dir.name, control.mint(), key),
        )  # fmt: skip


def _note(run: str, command_id: str, key: str) -> None:
    text = st.session_state[key].strip()
    if text:
        press(run, command_id, lambda: Annotate(text))
