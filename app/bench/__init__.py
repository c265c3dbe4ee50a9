"""``hybrid bench dashboard``: what the dashboard costs and how fast it is, in a real browser, ratios within one run."""
