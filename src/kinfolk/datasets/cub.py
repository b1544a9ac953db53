"""Birds of 200 species."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinfolk.datasets.pictures import Pictures, words
from kinfolk.exceptions import InputError


def cub(path: Path | str) -> Pictures:
    """CUB-200-2011: 11,788 pictures of birds, for users who have the files (for research and teaching only).

    Parameters
    ----------
    path
        The unpacked folder ``CUB_200_2011``, with images.txt, image_class_labels.txt, train_test_split.txt,
        classes.txt and images/. It is published at https://www.vision.caltech.edu/datasets/cub_200_2011/.

    Raises
    ------
    InputError
        If a file is not there, or does not fit the others.

    References
    ----------
    C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie (2011). The Caltech-UCSD Birds-200-2011 dataset. Technical
    report CNS-TR-2011-001, California Institute of Technology.
    """
    root = Path(path)
    names = dict(words(root / "images.txt", 2))
    class_of = dict(words(root / "image_class_labels.txt", 2))
    train = dict(words(root / "train_test_split.txt", 2))
    classes = dict(words(root / "classes.txt", 2))
    strangers = set(class_of.values()) - set(classes)
    if not names.keys() == class_of.keys() == train.keys() or strangers:
        raise InputError(f"The four text files in {root} must name the same pictures and classes. They do not.")
    number = {one: at for at, one in enumerate(classes)}
    return Pictures(
        tuple(root / "images" / name for name in names.values()),
        np.array([number[class_of[one]] for one in names], dtype=np.int64),
        tuple(name.partition(".")[2] or name for name in classes.values()),
        np.array([train[one] != "1" for one in names], dtype=bool),
    )
