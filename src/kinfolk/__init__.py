"""Deep multi-task learning with evidence."""

__version__ = "0.1.0"
