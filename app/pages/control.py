"""Layout of the Control page."""

import itertools

import streamlit as st

from app import steering
from app.actions import actions
from app.dialogs import remedy_dialog, sure_dialog
from app.feed import Feed
from app.forms import (
    SEEN_REV,
    TO_CONFIRM,
    asked_remedy,
    how_panel,
    knob_form,
    length_form,
    note_form,
    optimizer_forms,
    other_setting,
    remedy_form,
    setting_card,
)
from app.history import audit_table, command_list, newest_of_mine
from app.views.commands import state_rev
from app.views.knobs import knobs
from app.views.settings import FIRST, live_settings
from app.widgets import choose_run, frame, now_line, remember_forms


def settings(feed: Feed) -> None:
    """Sliders for the two that are moved most, and for any other."""
    known = {live.setting.name: live for live in live_settings(feed.snapshot())}
    if not known:
        st.info("The run has not told its configuration yet.")
        return
    for column, name in zip(st.columns(2), FIRST, strict=True):
        if name in known:
            with column:
                setting_card(feed, known[name])
    other_setting(feed, [live for name, live in known.items() if name not in FIRST])


frame()
feed = choose_run()
if feed is not None:
    phases = not feed.snapshot().own_loop
    asked = st.session_state.pop(TO_CONFIRM, None)
    remember_forms(feed)
    st.session_state[SEEN_REV] = state_rev(feed.snapshot())
    now_line(feed)
    with st.container(key="newest_of_mine"):
        newest_of_mine(feed)
    steering.unlock_panel(steering.right())
    asked_first = bool(asked_remedy())
    if asked_first:  # whoever comes for this one thing sees it first
        st.markdown("#### Emergency action")
        remedy_form(feed, remedy_dialog)
    with st.container(key="wide"):
        left, right = st.columns([3, 2], gap="large")
    with left:
        actions(feed, phases)
        how_panel(feed)
        found = knobs(feed.snapshot())
        if found:
            st.markdown("#### Knobs of the training script")
            for column, knob in zip(itertools.cycle(st.columns(2)), found, strict=False):
                with column:
                    knob_form(feed, knob)
        st.markdown("#### Thresholds")
        settings(feed)
        st.markdown("#### Optimizer")
        optimizer_forms(feed, phases)
        if phases:
            st.markdown("#### Lengths of phases")
            length_form(feed)
        st.markdown("#### Note")
        note_form(feed)
    with right:
        if not asked_first:
            st.markdown("#### Emergency actions")
            remedy_form(feed, remedy_dialog)
        recent, audit = st.tabs(["Commands", "Audit"])
        with recent:
            command_list(feed)
        with audit:
            audit_table(feed)
    if asked is not None and asked[0] == feed.run_dir.name:
        sure_dialog(feed, *asked[1:])
