"""The Reference page."""

from app.account import account
from app.components import live_page

feed = live_page("reference")
if feed is not None:
    account(feed)
