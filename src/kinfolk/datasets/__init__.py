"""Named public data sets."""

from kinfolk.datasets.digits import digits as digits
