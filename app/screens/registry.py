"""Every live page by name."""

from app.screens import alerts, compare, health, live, phases, reference
from app.screens.page import LivePage

PAGES: dict[str, LivePage] = {
    page.name: page for page in (live.PAGE, phases.PAGE, health.PAGE, alerts.PAGE, compare.PAGE, reference.PAGE)
}
