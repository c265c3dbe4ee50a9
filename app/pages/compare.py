"""The Compare page."""

from app.compare import compare_page

compare_page()
