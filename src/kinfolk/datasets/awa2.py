"""Animals of 50 classes with 85 attributes, as features of a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from kinfolk.datasets.pictures import numbers, words
from kinfolk.exceptions import InputError


@dataclass(frozen=True)
class Awa2:
    """Features of pictures of animals.

    Attributes
    ----------
    inputs
        What the last pooling of a ResNet-101 gives, 2048 numbers.
    labels
        Numbers of classes, from 0.
    classes
        Names of the animals.
    attributes
        Which class has which attribute: ``attributes[labels]`` are 85 binary tasks.
    predicates
        Names of the attributes.
    files
        Name of each row's picture.
    """

    inputs: Float32[np.ndarray, "row feature"]
    labels: Int64[np.ndarray, " row"]
    classes: tuple[str, ...]
    attributes: Bool[np.ndarray, "class attribute"]
    predicates: tuple[str, ...]
    files: tuple[str, ...]


def awa2(path: Path | str) -> Awa2:
    """Animals with Attributes 2: the published features of 37,322 pictures, for users who have the files.

    Parameters
    ----------
    path
        The unpacked folder ``Animals_with_Attributes2`` with Features/ResNet101/AwA2-features.txt, AwA2-labels.txt
        and AwA2-filenames.txt, classes.txt, predicates.txt and predicate-matrix-binary.txt, as published at
        https://cvml.ista.ac.at/AwA2/ (AwA2-base.zip and AwA2-features.zip).

    Raises
    ------
    InputError
        If a file is not there, or does not fit the others.

    References
    ----------
    Y. Xian, C. H. Lampert, B. Schiele, Z. Akata (2019). Zero-shot learning: a comprehensive evaluation of the good, the
    bad and the ugly. IEEE Transactions on Pattern Analysis and Machine Intelligence 41.
    """
    root = Path(path)
    features = root / "Features" / "ResNet101"
    classes, predicates = (_named(root / name) for name in ("classes.txt", "predicates.txt"))
    attributes = numbers(root / "predicate-matrix-binary.txt", int).astype(bool)
    labels = numbers(features / "AwA2-labels.txt", int)[:, 0] - 1
    files = tuple(line[0] for line in words(features / "AwA2-filenames.txt", 1))
    inputs = _features(features / "AwA2-features.txt")
    if attributes.shape != (len(classes), len(predicates)) or not len(inputs) == len(labels) == len(files):
        raise InputError(
            f"The files in {root} must fit. There are {len(inputs)} lines of features, {len(labels)} labels and "
            f"{len(files)} file names; {len(classes)} classes, {len(predicates)} predicates, and a matrix of "
            f"{' x '.join(map(str, attributes.shape))}."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(f"{features / 'AwA2-labels.txt'} must name classes from 1 to {len(classes)}. It has others.")
    return Awa2(inputs, labels, classes, attributes, predicates, files)


def _named(path: Path) -> tuple[str, ...]:
    """Names behind numbers."""
    return tuple(name for _, name in words(path, 2))


def _features(path: Path) -> np.ndarray:
    """The one large file, by the fastest reader of text at hand."""
    import pandas as pd

    if not path.is_file():
        raise InputError(f"There must be a file {path}. There is none.")
    try:
        return pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float32).to_numpy()
    except ValueError as error:  # pandas' own errors are kinds of it
        raise InputError(f"{path} must hold numbers, equally many in each line: {error}.") from error
