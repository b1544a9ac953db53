"""Handwritten digits that scikit-learn ships, as ten one-vs-rest tasks with few labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def digits(rows: int = 800, labelled: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """8 x 8 images of digits with ten targets, ``is_0`` to ``is_9``, of which some labels are missing.

    Parameters
    ----------
    rows
        How many images, at most 1797.
    labelled
        Share of the labels that is kept, drawn for each task by itself, in (0, 1].
    seed
        Of the draws.

    Returns
    -------
    DataFrame
        64 pixel columns (0 to 16) and ten columns of "yes", "no" or a gap.

    References
    ----------
    E. Alpaydin, C. Kaynak (1998). Optical recognition of handwritten digits. UCI Machine Learning Repository.
    """
    import pandas as pd
    from sklearn.datasets import load_digits

    if not 1 <= rows <= 1797 or not 0 < labelled <= 1:
        raise ValueError(f"`rows` must be in [1, 1797] and `labelled` in (0, 1]. Got {rows} and {labelled}.")
    random = np.random.default_rng(seed)
    images, digit = load_digits(return_X_y=True)
    chosen = random.permutation(len(digit))[:rows]
    frame = pd.DataFrame(images[chosen], columns=[f"pixel_{i // 8}_{i % 8}" for i in range(64)])
    for number in range(10):
        shown = random.random(rows) < labelled
        labels = np.where(digit[chosen] == number, "yes", "no")
        frame[f"is_{number}"] = pd.Series(labels, dtype=object).where(shown)
    return frame
