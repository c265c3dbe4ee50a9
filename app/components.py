"""The live component as Streamlit mounts it, with the run chooser above it. Draws nothing itself."""

from collections.abc import Callable, Sequence

import streamlit as st

from app.answers import answer, answers, note_press, sent_here
from app.feed import Feed
from app.live import component_data, component_source
from app.screens.registry import PAGES
from app.widgets import choose_run, frame


def live_page(name: str, first: Callable[[Feed], Sequence[str]] | None = None) -> Feed | None:
    """A page of the registry for the chosen run; what comes after it on the page is the caller's. None: no run yet.

    ``first`` says which metrics of the user's own the reader wants to see first.
    """
    frame()
    feed = choose_run(wait=False)
    if feed is not None:
        answer(feed)
        if sent_here(feed):
            answers(feed)
        mount(feed, name, first=first(feed) if first is not None else ())
    return feed


def mount(feed: Feed, name: str, others: Sequence[str] = (), first: Sequence[str] = ()) -> None:
    """The component alone; ``others`` are runs to compare with."""
    script, style = component_source()
    live = st.components.v2.component("hybrid_live", js=script, css=style, isolate_styles=False)
    key = f"live_{name}"
    data = component_data(feed.run_dir.name, PAGES[name], others, first)
    live(key=key, data=data, on_pressed_change=lambda: note_press(key))
