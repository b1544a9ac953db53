"""Named public data sets."""
