"""The Health page."""

from app.components import live_page

live_page("health")
