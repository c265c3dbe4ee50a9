"""What was commanded and what came of it: the list that is refreshed each second, and the audit. Sends nothing new."""

import time
from collections.abc import Sequence

import streamlit as st

from app import control
from app.feed import Feed
from app.figures import commands as commands_figure
from app.parts import part
from app.views.audit import as_csv, audit
from app.views.commands import Life, lives
from app.views.effects import effect
from app.widgets import mode, only_here
from trainer_core.spec.commands import CommandState

SHOWN, WITH_EFFECT = 12, 4
"""Newest commands in the list, and of the applied ones those whose effect is told."""


@part(run_every=1.0)
def command_list(feed: Feed) -> None:
    """The newest commands and where each stands; one that waits for its second message can be given it here."""
    snapshot = feed.snapshot()
    known = lives(snapshot)
    mine = only_here(feed, {life.command_id for life in known})
    shown, told = [], 0
    for life in in_order(mine, known)[:SHOWN]:
        found = None
        if life.state is CommandState.APPLIED and told < WITH_EFFECT:
            told, found = told + 1, effect(snapshot, life.seq)
        shown.append(life.with_effect(found.text) if found is not None else life)
    st.html(commands_figure.html(shown, mode(), len(mine) + len(known)))
    _waiting_for_confirmation(feed)


@part(run_every=1.0)
def newest_of_mine(feed: Feed) -> None:
    """On narrow windows, where the list is far below: what became of the last command of this browser."""
    sent: dict[str, control.Sent] = st.session_state.get("sent", {})
    mine = [key for key, value in sent.items() if value.run == feed.run_dir.name]
    if mine:
        found = next((life for life in lives(feed.snapshot()) if life.command_id == mine[-1]), sent[mine[-1]].life)
        st.html(commands_figure.html([found], mode(), name="hy-newest"))


def in_order(mine: Sequence[control.Sent], known: Sequence[Life]) -> list[Life]:
    """The newest first: what only this session knows of, by when it was sent, among what the journal tells."""
    began = time.time() - time.monotonic()
    timed = [(began + sent.sent_at, sent.life) for sent in reversed(mine)]
    timed += [(life.stages[-1].time, life) for life in known]
    return [life for _, life in sorted(timed, key=lambda pair: pair[0], reverse=True)]


def _waiting_for_confirmation(feed: Feed) -> None:
    mine: dict[str, control.Sent] = st.session_state.setdefault("sent", {})
    for key, sent in list(mine.items()):
        waits = sent.run == feed.run_dir.name and sent.outcome.state is CommandState.RECEIVED
        if waits and st.button(f"Confirm: {sent.life.title}", key=f"confirm_{key}", type="primary"):
            mine[key] = control.confirm(feed.run_dir, sent)
            st.rerun(scope="fragment")


def audit_table(feed: Feed) -> None:
    """Every transition of every command, filtered, and the same as a file."""
    everything = audit(feed.snapshot())
    if not everything:
        st.caption("No command has been sent to this run yet.")
        return
    one, two, three = st.columns(3)
    by = one.selectbox("Actor", ["", *sorted({entry.by for entry in everything})], format_func=_all)
    state = two.selectbox("State", ["", *sorted({entry.state for entry in everything})], format_func=_all)
    words = three.text_input("With the words", key="audit_words")
    found = audit(feed.snapshot(), by, state, words)
    columns = (
        "time",
        "actor",
        "on_behalf_of",
        "command",
        "state",
        "step",
        "phase",
        "before",
        "after",
        "reason",
        "detail",
    )
    st.dataframe([{name: getattr(entry, name) for name in columns} for entry in found], hide_index=True, height=340)
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.caption(f"{len(found):,} of {len(everything):,} transitions, newest first; times are UTC.")
    right.download_button(
        "CSV", as_csv(found), f"{feed.run_dir.name}-commands.csv", "text/csv", key="audit_csv", on_click="ignore",
        help="These rows with ids, revision, attempt and seq.", width="stretch",
    )  # fmt: skip


def _all(choice: str) -> str:
    return choice or "all"
