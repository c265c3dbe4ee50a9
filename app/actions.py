"""The one-click commands of the Control page, and the two that ask first. Computes nothing about training."""

import streamlit as st

from app import steering
from app.dialogs import rollback_dialog, stop_dialog
from app.feed import Feed
from app.forms import closed, command_button
from app.views.commands import prediction_locked, rollback_targets
from trainer_core.spec.commands import ForcePhase, LockPrediction, Pause, Resume, SaveCheckpoint
from trainer_core.spec.phases import Phase

FORCE = (
    (Phase.FULL, "Leave prediction at the next step boundary and train with true gradients.", ":material/bolt:"),
    (Phase.PREDICT, "Look at a proposal now and predict, when its guards allow; else refused with the guard.",
     ":material/fast_forward:"),
    (Phase.CORRECT, "End the prediction that is under way and test its correction.", ":material/build:"),
)  # fmt: skip


def actions(feed: Feed, phases: bool) -> None:
    """Pause, checkpoint, roll back, stop; force and lock where there are phases."""
    st.markdown("#### Actions")
    why = closed(feed)
    if steering.right().steers and why:
        st.caption(f":material/block: {why}")
    with st.container(horizontal=True, gap="small"):
        pause_button(feed)
        command_button(feed, "Save checkpoint", SaveCheckpoint(), key="checkpoint", icon=":material/save:",
                       help="Save at the next step boundary.")  # fmt: skip
        if phases and st.button("Roll back…", key="rollback", icon=":material/undo:", disabled=bool(why)):
            rollback_dialog(feed, rollback_targets(feed.snapshot()))
        if st.button("Stop run…", key="stop", icon=":material/stop:", disabled=bool(why)):
            stop_dialog(feed)
    if not phases:
        return
    with st.container(horizontal=True, gap="small"):
        for phase, help_, icon in FORCE:
            word = phase.value.lower()
            command_button(feed, f"Force {word} phase", ForcePhase(phase), key=f"force_{word}", help=help_, icon=icon)
        lock_button(feed)


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
