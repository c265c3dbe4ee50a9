"""Parts of a page: those that are drawn again by themselves, and the keys of components. Draws nothing itself."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import streamlit as st

P = ParamSpec("P")


def part(run_every: float | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A Streamlit fragment in a container of its own, so that nothing beside it moves when it is missing for a moment.

    When a fragment begins to run, Streamlit drops what it has not yet sent of it, also of a run of the whole page. The
    browser then takes the fragment for gone, and what stood after it moves up; the next message for a place that there
    is not any more ("Bad delta path index") leaves a broken page. The container belongs to the page and stays.
    """

    def made(draw: Callable[P, None]) -> Callable[P, None]:
        fragment = st.fragment(draw, run_every=run_every)

        @wraps(draw)
        def placed(*args: P.args, **kwargs: P.kwargs) -> None:
            with st.container():
                fragment(*args, **kwargs)

        return placed

    return made


def component_key(key: str) -> str:
    """A key as Streamlit takes it of a component: it must not have two ``_`` in a row, as a run's name may."""
    return key.replace("_", "_-")
