"""The Reference page."""

from app.components import live_page

live_page("reference")
