"""What each page shows live: HTML drawn once, the values and lists bound to it, and its figures."""
