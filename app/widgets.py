"""What pages are built from: run chooser, command buttons, command list. Computes nothing about training."""

import time
from pathlib import Path

import streamlit as st

from app import control
from app.feed import Feed
from app.figures import commands as commands_figure
from app.figures import now as now_figure
from app.steering import right
from app.views.commands import Life, lives
from app.views.knobs import KnobView, knobs
from app.views.settings import LiveSetting, live_settings
from app.views.strip import prediction_locked, strip
from app.watching import watch
from trainer_core.spec.commands import Command, LockPrediction, Pause, Resume, SetKnob, SetThreshold

ASK_AGAIN_S = 3.0
ASKING = "asking"
"""Session key: a dialog is open, which a redraw of the whole page would close."""
FIRST_READ_S = 3.0
FRAME = """<style>
[data-testid="stMainBlockContainer"] { padding: 4.4rem 1.6rem 2rem; }
@media (max-width: 1150px) {
  .st-key-wide > * > [data-testid="stHorizontalBlock"],
  .st-key-wide > [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
  .st-key-wide > * > * > [data-testid="stColumn"], .st-key-wide > * > [data-testid="stColumn"] { min-width: 100%; }
}
[data-testid="stAppDeployButton"] { display: none; }
</style>"""
MARK = {
    "working": "●", "paused": "❚❚", "stalled": "▲", "crashed": "✖", "failed": "✖", "finished": "✓", "stopped": "■",
}  # fmt: skip


def frame() -> None:
    """Margins that leave room for the charts."""
    st.html(FRAME)


def choose_run() -> Feed | None:
    """The run of the address (``?run=``) or the newest one, with a box to switch; None while there is none."""
    watched = watch()
    runs = watched.runs()
    if not runs:
        _no_runs(watched.runs_dir)
        return None
    labels = {run.name: f"{MARK.get(run.status.state, '·')} {run.name} · {run.status.state}" for run in runs}
    asked = st.query_params.get("run") or st.session_state.get("chosen_run")
    if asked is not None and asked not in labels:
        st.warning(f"There is no run called {asked} in {watched.runs_dir}. Shown: the newest one.")
    names = list(labels)
    index = names.index(asked) if asked in labels else 0
    chosen = st.selectbox(
        "Run",
        names,
        index=index,
        format_func=lambda name: labels.get(name, name),
        width=460,
        label_visibility="collapsed",
    )
    st.session_state["chosen_run"] = st.query_params["run"] = chosen
    feed = watched.feed(chosen)
    if feed is not None and not feed.wait(FIRST_READ_S):
        st.caption("Reading the journal…")
    return feed


def _no_runs(runs_dir: Path) -> None:
    st.subheader("No run yet")
    st.write(f"Nothing in `{runs_dir}` has a journal. Start one, and it appears here by itself:")
    st.code("hybrid demo\nhybrid train digits --run-dir " + str(runs_dir / "first"), language="bash")
    _look_again()


@st.fragment(run_every=2.0)
def _look_again() -> None:
    if watch().runs():
        st.rerun()


def command_button(feed: Feed, label: str, command: Command, *, key: str, help: str, icon: str) -> None:
    """A button that sends one command; its id is minted when the button is shown."""
    st.button(
        label,
        key=key,
        help=help,
        icon=icon,
        disabled=not right().steers,
        on_click=submit,
        args=(feed.run_dir, control.mint(), command),
    )


def pause_button(feed: Feed) -> None:
    """Pause, or resume when paused."""
    if feed.status is not None and feed.status.state == "paused":
        help_ = "Go on stepping."
        command_button(feed, "Resume training", Resume(), key="resume", help=help_, icon=":material/play_arrow:")
    else:
        help_ = "Stop stepping at the next boundary; commands are still taken."
        command_button(feed, "Pause training", Pause(), key="pause", help=help_, icon=":material/pause:")


def lock_button(feed: Feed) -> None:
    """Lock prediction, or unlock when locked."""
    if prediction_locked(feed.snapshot()):
        help_, unlock = "Let predictions begin again when the guards allow.", LockPrediction(False)
        command_button(feed, "Unlock prediction", unlock, key="unlock", help=help_, icon=":material/lock_open:")
    else:
        help_, lock = "Stay in FULL: no prediction until unlocked.", LockPrediction(True)
        command_button(feed, "Lock prediction", lock, key="lock", help=help_, icon=":material/lock:")


def submit(run_dir: Path, command_id: str, command: Command, reason: str = "", confirm: bool = False) -> None:
    """Send, and remember what was heard, for the list."""
    sent = st.session_state.setdefault("sent", {})
    sent[command_id] = control.send(run_dir, command_id, command, reason, confirm)


def setting_form(feed: Feed, live: LiveSetting, low: float, high: float, step: float) -> None:
    """A slider between two bounds and the button that sends its value."""
    setting = live.setting
    key = f"slider_{feed.run_dir.name}_{setting.name}"
    label = setting.name.replace("_", " ").capitalize()
    with st.form(f"form_{key}", border=True):
        st.slider(
            f"{label} ({setting.unit})", low, high, min(max(live.value, low), high), step, key=key, help=setting.meaning
        )
        left, right = st.columns([2, 1], vertical_alignment="center")
        left.caption(f"in force: **{live.value:g}** · default {setting.default:g}")
        right.form_submit_button(
            "Apply", key=f"apply_{setting.name}", width="stretch", on_click=_submit_slider,
            args=(feed.run_dir, control.mint(), setting.name, key),
        )  # fmt: skip


def knob_form(feed: Feed, knob: KnobView) -> None:
    """A slider between the bounds that the training script gave its knob."""
    key = f"knob_{feed.run_dir.name}_{knob.name}"
    with st.form(f"form_{key}", border=True):
        st.slider(
            knob.label, knob.low, knob.high, min(max(knob.value, knob.low), knob.high), (knob.high - knob.low) / 100,
            key=key, help=knob.meaning or None, format="%.4g",
        )  # fmt: skip
        left, right = st.columns([2, 1], vertical_alignment="center")
        left.caption(f"in force: **{knob.value:g}** · {knob.low:g} to {knob.high:g}")
        right.form_submit_button(
            "Apply", key=f"apply_{key}", width="stretch", on_click=_submit_knob,
            args=(feed.run_dir, control.mint(), knob.name, key),
        )  # fmt: skip


def _submit_knob(run_dir: Path, command_id: str, name: str, key: str) -> None:
    submit(run_dir, command_id, SetKnob(name, float(st.session_state[key])))


def _submit_slider(run_dir: Path, command_id: str, name: str, key: str) -> None:
    submit(run_dir, command_id, SetThreshold(name, float(st.session_state[key])))


@st.fragment(run_every=1.0)
def command_list(feed: Feed) -> None:
    """Every command and where it stands, refreshed every second."""
    known = lives(feed.snapshot())
    st.html(commands_figure.html([*_only_here(feed, {life.command_id for life in known}), *known], _mode()))


def _only_here(feed: Feed, known: set[str]) -> list[Life]:
    """Commands of this session that the journal does not have (yet); those without an answer are asked about again."""
    mine: dict[str, control.Sent] = st.session_state.setdefault("sent", {})
    waiting = {key: sent for key, sent in mine.items() if sent.run == feed.run_dir.name and key not in known}
    due = time.monotonic() >= st.session_state.get("ask_again_at", 0.0)
    for key, sent in waiting.items():
        if due and control.unsettled(sent, time.monotonic()):
            mine[key] = waiting[key] = control.ask_again(feed.run_dir, sent)
            st.session_state["ask_again_at"] = time.monotonic() + ASK_AGAIN_S
    return [sent.life for sent in reversed(waiting.values())]


def _mode() -> str:
    return "dark" if st.context.theme.type == "dark" else "light"


@st.fragment(run_every=1.0)
def now_line(feed: Feed) -> None:
    """One line of where the run is, so that nobody has to leave the page to see what a command did."""
    if feed.connection.error:
        st.error(f"Watching is troubled: {feed.connection.error}")
    if feed.status is None:
        st.caption("Nothing of this run has been read yet.")
        return
    now = strip(feed.snapshot(), feed.status, str(feed.run_dir), time.time())
    st.html(now_figure.html(now, _mode()))
    if not st.session_state.get(ASKING) and st.session_state.get("form_state") != form_state(feed):
        st.rerun()


def form_state(feed: Feed) -> tuple[object, ...]:
    """What the buttons and forms of the Control page depend on; when it changes they are drawn anew."""
    snapshot = feed.snapshot()
    state = feed.status.state if feed.status is not None else ""
    return (
        state,
        prediction_locked(snapshot),
        tuple(live.value for live in live_settings(snapshot)),
        tuple(knobs(snapshot)),
    )


def remember_forms(feed: Feed) -> None:
    """Called when a page draws its forms: no dialog is open now, and this is what they were drawn from."""
    st.session_state[ASKING] = False
    st.session_state["form_state"] = form_state(feed)


def other_settings(feed: Feed, settings: list[LiveSetting]) -> None:
    """Any live setting by number, with its meaning and bounds, and the table of all of them."""
    with st.expander("Every live setting"):
        named = {live.setting.name: live for live in settings}
        chosen = named[st.selectbox("Setting", list(named), format_func=lambda name: f"{name} = {named[name].value:g}")]
        setting = chosen.setting
        st.caption(f"{setting.meaning} {setting.bounds.capitalize()}. Default {setting.default:g}.")
        key = f"number_{feed.run_dir.name}_{setting.name}"
        kind = int if setting.type == "int" else float
        low, high, value = (kind(bound) for bound in (setting.low or 0, setting.high or 0, chosen.value))
        with st.form(f"form_{key}", border=False):
            left, right = st.columns([2, 1], vertical_alignment="bottom")
            left.number_input(
                f"New value ({setting.unit})" if setting.unit else "New value",
                low, high, value, key=key, format="%d" if kind is int else "%g",
            )  # fmt: skip
            right.form_submit_button(
                "Apply", key="apply_other", width="stretch", on_click=_submit_slider,
                args=(feed.run_dir, control.mint(), setting.name, key),
            )  # fmt: skip
        st.dataframe([_setting_row(live) for live in settings], hide_index=True)


def _setting_row(live: LiveSetting) -> dict[str, str]:
    setting = live.setting
    return {
        "setting": setting.name,
        "in force": f"{live.value:g}",
        "default": f"{setting.default:g}",
        "unit": setting.unit,
        "meaning": setting.meaning,
    }
