"""What this browser may do, asked at the moment it matters, and the form that changes it. Sends no command."""

from pathlib import Path

import streamlit as st

from app.access import NOT_SERVED, Right, Role, gate
from app.login import right_of

SCRIPT = Path(__file__).parent / "static" / "unlock.js"
FORM = """<form class="hy-unlock" autocomplete="off">
<div class="hy-code"><label>Operator code <input name="code" type="password" required maxlength="60"></label>
<label>Your name, for the record <input name="who" maxlength="60"></label></div>
<button type="submit">%s</button><output role="alert"></output></form>"""
STYLE = """
.hy-unlock { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: end; font: 14px var(--st-font); }
.hy-unlock .hy-code { display: flex; flex-wrap: wrap; gap: 8px 12px; }
.hy-unlock label { display: grid; gap: 2px; font-size: 13px; color: var(--st-text-color); }
.hy-unlock input { font: inherit; padding: 6px 8px; border-radius: 6px; border: 1px solid var(--st-border-color);
  background: var(--st-secondary-background-color); color: var(--st-text-color); width: 15em; }
.hy-unlock button { font: inherit; padding: 6px 12px; border-radius: 6px; cursor: pointer;
  border: 1px solid var(--st-border-color); background: var(--st-background-color); color: var(--st-text-color); }
.hy-unlock output { color: var(--st-text-color); flex-basis: 100%; }
.hy-unlock output:empty { display: none; }
"""


def right() -> Right:
    """What the browser behind this script run may do now; a right that was given back or ran out is gone at once."""
    held = gate()
    return Right(Role.VIEWER, why=NOT_SERVED) if held is None else right_of(st.context.cookies, held)


def unlock_panel(mine: Right) -> None:
    """Who steers, and the form to begin or end it."""
    held = gate()
    if mine.steers:
        name = f" as {mine.who}" if mine.who else ""
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f":material/lock_open: You may steer{name}.", width="content")
            if mine.session:
                _form("hybrid_lock", "Lock steering", held=True)
        return
    st.info(mine.why, icon=":material/lock:")
    if held is not None and not held.read_only:
        with st.expander("Unlock steering", icon=":material/key:"):
            _form("hybrid_unlock", "Unlock steering", held=False)


def _form(name: str, label: str, held: bool) -> None:
    script = SCRIPT.read_text(encoding="utf-8")
    html = FORM % label if not held else FORM[: FORM.index("<div")] + FORM[FORM.index("<button") :] % label
    form = st.components.v2.component(name, html=html, css=STYLE, js=script)
    form(key=name, data={"held": held})


def looking() -> bool:
    """Whether anything may be shown; otherwise the login, and nothing else. Where there are logins: whose it is."""
    held = gate()
    if held is None or held.policy is None:
        return True
    mine = right()
    if not mine.looks:
        st.subheader("Log in to look")
        st.write(mine.why)
        if not st.user.get("is_logged_in"):
            st.button("Log in", type="primary", on_click=st.login)
    if st.user.get("is_logged_in"):
        with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="small"):
            st.caption(f"{st.user.get('email')} · {mine.role}", width="content")
            st.button("Log out", key="log_out", type="tertiary", on_click=st.logout)
    return mine.looks
