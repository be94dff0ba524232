"""Placeholder."""


class ApacheBroker:
    """To come."""
