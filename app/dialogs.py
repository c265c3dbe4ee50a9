"""The questions asked before something is thrown away, ended or changed at large. Sends only what was confirmed."""

from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from app import control
from app.feed import Feed
from app.forms import REASON, press, told_how, used
from app.views import words
from app.views.commands import COMPARED, NOT_RESTORED, RESTORED, Target, expected_rev, state_rev, title
from app.views.measured import newest
from app.views.remedy import plan
from app.widgets import ASKING, submit
from trainer_core.spec.commands import Command, Rollback, Stop


def _dismissed() -> None:
    st.session_state[ASKING] = False


@st.dialog("Roll back to a checkpoint?", on_dismiss=_dismissed)
def rollback_dialog(feed: Feed, targets: list[Target]) -> None:
    """Choose a checkpoint, read what is lost, confirm. The targets are those of the moment it was opened: a choice
    must not move under the pointer because training went on."""
    st.session_state[ASKING] = True
    if not targets:
        st.write("No checkpoint to go back to is known yet. Save one first; one just saved is known in a moment.")
        return
    good = next((i for i, target in enumerate(targets) if target.good), 0)
    target = st.selectbox("Checkpoint", targets, index=good, format_func=lambda found: found.label)
    st.warning(
        f"Thrown away: **{target.cost}**, and every step taken until the command arrives. "
        "Their rows stay in the record and are drawn pale.",
        icon=":material/warning:",
    )
    change = (
        ""
        if target.loss is None or target.loss_now is None
        else f", {target.loss - target.loss_now:+.2g} by going back"
    )
    st.markdown(f"Loss there **{words.number(target.loss)}**, now **{words.number(target.loss_now)}**{change}.")
    st.caption(f"**Goes back:** {RESTORED}.  \n**Stays as it is:** {NOT_RESTORED}.")
    _confirm(feed, f"Roll back to step {target.step:,}", Rollback(target.name), "confirm_rollback")


@st.dialog("Stop the run?", on_dismiss=_dismissed)
def stop_dialog(feed: Feed) -> None:
    """Say what stopping does, confirm."""
    st.session_state[ASKING] = True
    st.write("The trainer saves a checkpoint and ends. Nothing is lost; the run can be resumed from the command line.")
    _confirm(feed, "Stop the run", Stop(), "confirm_stop")


@st.dialog("Apply this remedy?", on_dismiss=_dismissed)
def remedy_dialog(feed: Feed, name: str, sent: Callable[[], object]) -> None:
    """Exactly what would be sent, then confirm; ``sent`` is called when it was. It is of the moment it was opened."""
    st.session_state[ASKING] = True
    found = plan(feed.snapshot(), name)
    if found is None or not found.lines:
        st.info(f"{name}: {found.nothing if found is not None else 'the run has not told its settings yet'}.")
        return
    st.write(f"**{name}**: {found.meaning}")
    st.table([{"what": line.name, "now": line.before, "then": line.after} for line in found.lines])
    if found.throws_away:
        st.warning(
            f"Thrown away: **{found.throws_away}**, and every step taken until the command arrives.",
            icon=":material/warning:",
        )
    if found.against:
        st.warning(words.plain(f"Look first: {found.against}."), icon=":material/warning:")
    _confirm(feed, "Apply all of it", found.command, "confirm_remedy", sent)


@st.dialog("Are you sure?", on_dismiss=_dismissed)
def sure_dialog(feed: Feed, command_id: str, command: Command, seen: int | None) -> None:
    """For a command that changes more than usual: say it once more, with the value now."""
    st.session_state[ASKING] = True
    rate = newest(feed.snapshot(), "learning_rate").value
    st.warning(
        f"**{title(command)}**: ten times the learning rate, or a tenth, can end a run.", icon=":material/warning:"
    )
    st.write(f"The learning rate is {words.number(rate)} now." if rate is not None else "It has not been measured yet.")
    go, leave = st.columns(2)
    if go.button("Do it", key="confirm_sure", type="primary", width="stretch"):
        press(feed.run_dir.name, command_id, lambda: command, confirm=True, seen=seen)
        st.rerun()
    if leave.button("Cancel", key="cancel_sure", width="stretch"):
        st.rerun()


def _confirm(feed: Feed, label: str, command: Command, key: str, sent: Callable[[], object] | None = None) -> None:
    """Reason and buttons. What the panel on the page says of the next command, it says of this one."""
    reason = st.text_input(
        "Reason (optional, recorded with the command)", st.session_state.get(REASON, ""), max_chars=200
    )
    how = replace(told_how(reason), expect_state_rev=_shown_rev(feed, command, f"{key}_rev"))
    if how.at_step is not None:
        st.caption(f"Not at once: at step **{how.at_step:,}**, if it comes there within {how.ttl_s:g} s.")
    command_id = st.session_state.setdefault(f"{key}_id", control.mint())
    go, leave = st.columns(2)
    if go.button(label, key=key, type="primary", width="stretch"):
        submit(feed.run_dir, command_id, command, how, confirm=True)
        used()
        del st.session_state[f"{key}_id"]
        if sent is not None:
            sent()
        st.rerun()
    if leave.button("Cancel", key=f"{key}_cancel", width="stretch"):
        st.rerun()


def _shown_rev(feed: Feed, command: Command, key: str) -> int | None:
    """The revision to send a change of values with: that of the dialog's last drawing, which was read; else None."""
    if not isinstance(command, COMPARED):
        return None
    snapshot = feed.snapshot()
    seen = st.session_state.get(key, state_rev(snapshot))
    st.session_state[key] = state_rev(snapshot)
    return expected_rev(snapshot, seen, st.session_state.get("sent", {}))
