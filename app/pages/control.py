"""Layout of the Control page."""

import streamlit as st

from app.dialogs import rollback_dialog, stop_dialog
from app.feed import Feed
from app.views.settings import FIRST, live_settings
from app.widgets import choose_run, command_button, command_list, frame, now_line, other_settings, setting_form
from trainer_core.spec.commands import ForcePhase, LockPrediction, Pause, Resume, SaveCheckpoint
from trainer_core.spec.phases import Phase


def actions(feed: Feed) -> None:
    """One-click commands, and the two that ask first."""
    paused = feed.status is not None and feed.status.state == "paused"
    first, second, third = st.columns(3)
    with first:
        command_button(feed, "Force full phase", ForcePhase(Phase.FULL), key="force_full", icon=":material/bolt:",
                       help="Leave prediction at the next step boundary and train with true gradients.")  # fmt: skip
        command_button(feed, "Lock prediction", LockPrediction(True), key="lock", icon=":material/lock:",
                       help="Stay in FULL: no prediction until unlocked.")  # fmt: skip
    with second:
        if paused:
            command_button(feed, "Resume training", Resume(), key="resume", icon=":material/play_arrow:",
                           help="Go on stepping.")  # fmt: skip
        else:
            command_button(feed, "Pause training", Pause(), key="pause", icon=":material/pause:",
                           help="Stop stepping at the next boundary; commands are still taken.")  # fmt: skip
        command_button(feed, "Unlock prediction", LockPrediction(False), key="unlock", icon=":material/lock_open:",
                       help="Let predictions begin again when the guards allow.")  # fmt: skip
    with third:
        command_button(feed, "Save checkpoint", SaveCheckpoint(), key="checkpoint", icon=":material/save:",
                       help="Save at the next step boundary.")  # fmt: skip
        if st.button("Roll back…", key="rollback", icon=":material/undo:", width="stretch"):
            rollback_dialog(feed)
        if st.button("Stop run…", key="stop", icon=":material/stop:", width="stretch"):
            stop_dialog(feed)


frame()
feed = choose_run()
if feed is not None:
    now_line(feed)
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Actions")
        actions(feed)
        st.subheader("Thresholds")
        settings = {live.setting.name: live for live in live_settings(feed.snapshot())}
        if settings:
            for column, name, high in zip(st.columns(2), FIRST, (1.0, 10.0), strict=True):
                with column:
                    setting_form(feed, settings[name], float(settings[name].setting.low or 0.0), high, 0.01)
            other_settings(feed, list(settings.values()))
        else:
            st.info("The run has not told its configuration yet.")
    with right:
        st.subheader("Commands")
        command_list(feed)
