"""The Reference page: the document's tables with the live value beside each limit."""

from app.figures import strip
from app.screens import blocks
from app.screens.page import LivePage


def html() -> str:
    """Everything but the values."""
    return blocks.page(strip.html())


PAGE = LivePage("reference", html)
