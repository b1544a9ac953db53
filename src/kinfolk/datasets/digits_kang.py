"""Handwritten digits in the small sets on which shallow multi-task methods are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from kinfolk.datasets import matlab, origin

AT = "https://raw.githubusercontent.com/tjanez/PyMTL"
SOURCES = {
    "mnist": (
        "164d20effee22b1df109588b37109890d648dbabd7bf7cb67c88f69e84cc4de8",
        f"{AT}/a78e0abe195d7e656f19abb7a5c6c4fd8fd8cb30/data/mnist_digits",
    ),
    "usps": (
        "106c4157c08d5df9b4c1b713ddca65696e1b63aa6bc0b20d765597b6d890cda6",
        f"{AT}/5e0988f195cd46e169f3d9993b6d42c56455e613/data/usps_digits",
    ),
}


@dataclass(frozen=True)
class Digits:
    """Principal components of images of digits, in three parts.

    Attributes
    ----------
    inputs, validation_inputs, test_inputs
        Components, largest first.
    labels, validation_labels, test_labels
        Classes 0 to 9, as the file numbers them (1 to 10), less 1.
    """

    inputs: Float64[np.ndarray, "row feature"]
    labels: Int64[np.ndarray, " row"]
    validation_inputs: Float64[np.ndarray, "validation feature"]
    validation_labels: Int64[np.ndarray, " validation"]
    test_inputs: Float64[np.ndarray, "test feature"]
    test_labels: Int64[np.ndarray, " test"]


def digits_kang(source: str = "mnist") -> Digits:
    """1000 training, 500 validation and 500 test rows, from ``$KINFOLK_DATA/digits_kang2011`` or downloaded.

    It is the first of the paper's random splits; the others are not published any more. No licence is stated.

    Parameters
    ----------
    source
        "mnist", with 87 components, or "usps", with 64.

    Raises
    ------
    ValueError
        For another source.

    References
    ----------
    Z. Kang, K. Grauman, F. Sha (2011). Learning with whom to share in multi-task feature learning. ICML.
    """
    if source not in SOURCES:
        raise ValueError(f"`source` must be one of {', '.join(SOURCES)}. Got {source!r}.")
    sha256, mirror = SOURCES[source]
    names = [f"digit_{part}{what}" for part in ("train", "valid", "test") for what in "xy"]
    path = origin.file("digits_kang2011", f"split1_{source}_1000train.mat", sha256, (mirror,))
    x, y, valid_x, valid_y, test_x, test_y = (array.astype(np.float64) for array in matlab.read(path, names))
    train, valid, test = (labels.ravel().astype(np.int64) - 1 for labels in (y, valid_y, test_y))
    return Digits(x, train, valid_x, valid, test_x, test)
