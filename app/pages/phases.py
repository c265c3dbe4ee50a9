"""The Phases page."""

from app.components import live_page

live_page("phases")
