"""Layout of the Control page."""

import itertools

import streamlit as st

from app import steering
from app.dialogs import rollback_dialog, stop_dialog
from app.feed import Feed
from app.views.commands import rollback_targets
from app.views.knobs import knobs
from app.views.settings import FIRST, live_settings
from app.widgets import (
    choose_run,
    command_button,
    command_list,
    frame,
    knob_form,
    lock_button,
    now_line,
    other_settings,
    pause_button,
    remember_forms,
    setting_form,
)
from trainer_core.spec.commands import ForcePhase, SaveCheckpoint
from trainer_core.spec.phases import Phase


def actions(feed: Feed, phases: bool) -> None:
    """One-click commands, and the two that ask first; without those that need phases where there are none."""
    with st.container(horizontal=True):
        if phases:
            help_ = "Leave prediction at the next step boundary and train with true gradients."
            full = ForcePhase(Phase.FULL)
            command_button(feed, "Force full phase", full, key="force_full", help=help_, icon=":material/bolt:")
            lock_button(feed)
        pause_button(feed)
        command_button(feed, "Save checkpoint", SaveCheckpoint(), key="checkpoint", icon=":material/save:",
                       help="Save at the next step boundary.")  # fmt: skip
        if phases and st.button("Roll back…", key="rollback", icon=":material/undo:"):
            rollback_dialog(feed, rollback_targets(feed.snapshot()))
        if st.button("Stop run…", key="stop", icon=":material/stop:"):
            stop_dialog(feed)


frame()
feed = choose_run()
if feed is not None:
    remember_forms(feed)
    now_line(feed)
    steering.unlock_panel(steering.right())
    with st.container(key="wide"):
        left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("#### Actions")
        actions(feed, phases=not feed.snapshot().own_loop)
        found = knobs(feed.snapshot())
        if found:
            st.markdown("#### Knobs of the training script")
            for column, knob in zip(itertools.cycle(st.columns(2)), found, strict=False):
                with column:
                    knob_form(feed, knob)
        st.markdown("#### Thresholds")
        settings = {live.setting.name: live for live in live_settings(feed.snapshot())}
        if settings:
            for column, name, high in zip(st.columns(2), FIRST, (1.0, 10.0), strict=True):
                if name in settings:
                    with column:
                        setting_form(feed, settings[name], float(settings[name].setting.low or 0.0), high, 0.01)
            other_settings(feed, list(settings.values()))
        else:
            st.info("The run has not told its configuration yet.")
    with right:
        st.markdown("#### Commands")
        command_list(feed)
