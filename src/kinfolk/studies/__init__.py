"""Published experiments as commands; one export line per study."""
