"""What data sets are given as, beside tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class Images:
    """Grey images with a class each, as they are published: in training and test rows.

    Attributes
    ----------
    inputs, test_inputs
        Pixels, 0 to 255.
    labels, test_labels
        Numbers of classes, from 0.
    classes
        Names of the classes.
    """

    inputs: UInt8[np.ndarray, "row height width"]
    labels: Int64[np.ndarray, " row"]
    test_inputs: UInt8[np.ndarray, "test height width"]
    test_labels: Int64[np.ndarray, " test"]
    classes: tuple[str, ...]
