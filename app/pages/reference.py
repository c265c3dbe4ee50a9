"""The Reference page."""

from app.account import account
from app.components import live_page
from app.widgets import FIRST_READ_S

feed = live_page("reference")
if feed is not None:
    feed.wait(FIRST_READ_S)
    account(feed)
