"""The Compare page."""

from app.components import live_page

live_page("compare")
