"""The Alerts page."""

from app.components import live_page

live_page("alerts")
