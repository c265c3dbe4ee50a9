"""The Alerts page: every alert, every rule and its live value."""

from app.figures import strip
from app.screens import blocks
from app.screens.page import LivePage


def html() -> str:
    """Everything but the values."""
    return blocks.page(strip.html())


PAGE = LivePage("alerts", html)
