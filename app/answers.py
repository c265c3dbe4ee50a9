"""What a press on a live page leads to: a command, or a question first. The browser names it, this side decides."""

import time

import streamlit as st

from app import control
from app.feed import Feed
from app.figures import commands as commands_figure
from app.parts import part
from app.steering import right, unlock_panel
from app.views.alerts import entry
from app.views.commands import lives
from app.widgets import ASKING, only_here, submit
from trainer_core.spec.commands import AcknowledgeAlert, SilenceAlert

PRESSED = "pressed_on"
"""Session key: what was pressed and is not answered yet."""
SENT_HERE = "sent_from_alerts"
"""Session key: ids of commands sent from here, the newest last."""
USUAL_SILENCE = 500
MOST_SILENCE = 10_000_000


def note_press(key: str) -> None:
    """Callback of the live component with this key: keep what was pressed until the page has been run."""
    st.session_state[PRESSED] = getattr(st.session_state.get(key), "pressed", None)


def answer(feed: Feed) -> None:
    """Do what was pressed, if anything was."""
    pressed = st.session_state.pop(PRESSED, None)
    if not isinstance(pressed, dict):
        return
    which = str(pressed.get("which", ""))[:200]
    if pressed.get("what") == "control":  # opens a page, which takes no right; that page asks before it sends
        st.switch_page("pages/control.py", query_params={"run": feed.run_dir.name, "remedy": which})
    mine = right()
    if not mine.steers:
        unlock_panel(mine)
        return
    match pressed.get("what"):
        case "acknowledge":
            if entry(feed.snapshot(), None, which) is not None:
                _send(feed, AcknowledgeAlert(which))
        case "silence":
            silence_dialog(feed, which)
        case _:
            pass


def _send(feed: Feed, command: AcknowledgeAlert | SilenceAlert, reason: str = "") -> None:
    command_id = control.mint()
    submit(feed.run_dir, command_id, command, control.How(reason))
    _remember(command_id)


def _remember(command_id: str) -> None:
    st.session_state[SENT_HERE] = [*st.session_state.get(SENT_HERE, []), command_id][-3:]


def _dismissed() -> None:
    st.session_state[ASKING] = False


@st.dialog("Silence a rule?", on_dismiss=_dismissed)
def silence_dialog(feed: Feed, rule: str) -> None:
    """For how many steps, and why."""
    st.session_state[ASKING] = True
    st.write(f"**{rule}** raises no new alert meanwhile. What is open stays open; training is not changed.")
    steps = st.number_input("For how many steps", 1, MOST_SILENCE, USUAL_SILENCE, key=f"silence_{rule}")
    reason = st.text_input("Reason (optional, recorded with the command)", max_chars=200)
    go, leave = st.columns(2)
    if go.button("Silence", type="primary", width="stretch", key="confirm_silence"):
        _send(feed, SilenceAlert(rule, int(steps)), reason)
        st.rerun()
    if leave.button("Cancel", width="stretch", key="cancel_silence"):
        st.rerun()


@part(run_every=1.0)
def answers(feed: Feed) -> None:
    """What became of the last commands sent from here: requested, accepted, applied or refused. Empty: none was."""
    mine = sent_here(feed)
    if not mine:
        return
    known = {life.command_id: life for life in lives(feed.snapshot())}
    only_here(feed, set(known))
    sent = st.session_state.get("sent", {})
    shown = [known[key] if key in known else sent[key].life for key in reversed(mine)]
    mode = "dark" if st.context.theme.type == "dark" else "light"
    st.html(commands_figure.html(shown, mode))
    now = time.monotonic()
    settled = all(
        life.state.final if life.state else not control.unsettled(sent[life.command_id], now) for life in shown
    )
    if settled and st.button("Close", key="close_answers"):
        st.session_state[SENT_HERE] = []
        st.rerun(scope="fragment")


def sent_here(feed: Feed) -> list[str]:
    """Ids of the last commands that this session sent to this run from a live page."""
    sent = st.session_state.get("sent", {})
    return [key for key in st.session_state.get(SENT_HERE, []) if key in sent and sent[key].run == feed.run_dir.name]
