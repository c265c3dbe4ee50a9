"""What a page shows, kept in its address, so that a link shows what its sender saw. Knows no page and no run.

Streamlit pushes an entry of the browser's history for every change of ``st.query_params``: right for what a reader has
chosen, and one press of "Back" too many for what a page fills in by itself.
"""

from pathlib import Path

import streamlit as st

STATIC = Path(__file__).parent / "static"


def chosen(**values: str | list[str]) -> None:
    """What the reader has just chosen: "Back" undoes it."""
    st.query_params.update(values)


def filled_in(key: str, value: str) -> None:
    """What the page shows because nothing else was asked for: written beside the rest, over the same entry."""
    draw = st.components.v2.component(
        "hybrid_address", html="<span hidden></span>", js=(STATIC / "address.js").read_text(encoding="utf-8")
    )
    with st.container(key=f"address_{key}"):
        draw(key=f"address-{key}", data={key: value}, height=0)
