"""The Live page."""

from app.components import live_page

live_page("live")
