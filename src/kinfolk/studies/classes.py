"""Rows of classes, for studies in which a class is a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from kinfolk import datasets
from kinfolk.datasets.pictures import Pictures
from kinfolk.exceptions import InputError
from kinfolk.studies.shallow import standardised
from kinfolk.trunks import LeNet, Mlp
from kinfolk.trunks.base import Trunk

MNIST, AWA2, CUB, FOLDER = "MNIST-Imbalanced", "AWA2", "CUB-200", "image folder"
SIDE = 64  # pixels of pictures, which have all sizes
TESTED = 4  # one row in so many tests, where a data set does not say which
FEW = 3  # rows of each class in the quick form
FOLDERS = {
    "awa2": ("the unpacked folder Animals_with_Attributes2", "Features/ResNet101/AwA2-features.txt"),
    "cub": ("the unpacked folder CUB_200_2011", "images.txt"),
    "folder": ("a folder with a folder of pictures for each class", ""),
    "photographs": ("the unpacked folder MTFL", "training.txt"),
}
"""What an option must name, and a file that is in it."""


@dataclass(frozen=True)
class Classes:
    """Rows of classes: ``[row, ...]``, numbers as the trunk reads them, with the number of each row's class.

    Attributes
    ----------
    train, test
        Who learns, who judges.
    validation
        Further rows; None where all others train.
    trunk
        What learns from such rows.
    names
        Of the classes.
    """

    train: tuple[Float[Tensor, "train ..."], Int64[Tensor, " train"]]
    validation: tuple[Float[Tensor, "validation ..."], Int64[Tensor, " validation"]] | None
    test: tuple[Float[Tensor, "test ..."], Int64[Tensor, " test"]]
    trunk: Trunk
    names: tuple[str, ...]

    @property
    def counts(self) -> Int64[Tensor, " class"]:
        """Training rows of each class."""
        return self.train[1].bincount()

    @property
    def watched(self) -> tuple[Float[Tensor, "watched ..."], Int64[Tensor, " watched"]]:
        """A hundred rows to look at meanwhile, which decide nothing."""
        inputs, labels = self.validation or self.train
        return inputs[:100], labels[:100]


def check_folder(option: str, path: str | None) -> None:
    """Raises InputError where an option of a study names a folder that is not there, or another than it must."""
    wanted, file = FOLDERS[option]
    if path is None:
        return
    place = Path(path) / file
    if not (place.is_file() if file else place.is_dir()):
        raise InputError(
            f"`{option}` must be {wanted}. Got {path!r}, and there is no {'file' if file else 'folder'} {place}: "
            "give the folder's path, or leave the option out."
        )


@lru_cache(maxsize=4)  # trials of all data sets are computed in one process
def read(name: str, path: str = "", quick: bool = False) -> Classes:
    """The data set of this name, from its folder; with `quick` few of its rows."""
    if name == MNIST:
        whole = imbalanced_mnist()
        few = lambda part: tuple(x[:200] for x in part)  # noqa: E731
        return replace(whole, validation=few(whole.validation), test=few(whole.test)) if quick else whole
    if name == AWA2:
        return animals(path, quick)
    return pictured(datasets.cub(path) if name == CUB else datasets.image_folder(path), quick)


def imbalanced_mnist() -> Classes:
    """MNIST-Imbalanced: of class k the first 20 (10 - k) training images; the other training images validate."""
    images = datasets.mnist()
    labels, inputs = torch.tensor(images.labels), torch.tensor(images.inputs)
    rank = torch.nn.functional.one_hot(labels, 10).cumsum(0).gather(1, labels[:, None]).squeeze(1)  # from 1, in a class
    kept = rank <= 20 * (10 - labels)
    test = torch.tensor(images.test_inputs), torch.tensor(images.test_labels)
    pixels = lambda x: x.unsqueeze(1).float() / 255  # noqa: E731
    return Classes(
        (pixels(inputs[kept]), labels[kept]), (pixels(inputs[~kept]), labels[~kept]), (pixels(test[0]), test[1]),
        LeNet(init="glorot"), images.classes,
    )  # fmt: skip


def animals(path: str, quick: bool = False) -> Classes:
    """AWA2: features of mean 0 and deviation 1 among training rows, and a dense layer that learns from them."""
    data = datasets.awa2(path)
    train, test = _parts(data.labels, data.classes, None, quick)
    rows, many = np.concatenate([train, test]), len(train)
    inputs = torch.from_numpy(standardised(data.inputs[rows], np.arange(many)))
    labels = torch.from_numpy(data.labels[rows])
    trunk = Mlp(500, 1, "relu", init="glorot")
    return Classes((inputs[:many], labels[:many]), None, (inputs[many:], labels[many:]), trunk, data.classes)


def pictured(found: Pictures, quick: bool = False) -> Classes:
    """Pictures of 64 x 64 pixels in three colours, and the network for digits with one convolution more.

    The third leaves 4 x 4 pixels of 50 channels to the dense layer, as there are for digits.
    """
    train, test = (
        (torch.from_numpy(found.read(rows.tolist(), SIDE)).float() / 255, torch.from_numpy(found.labels[rows]))
        for rows in _parts(found.labels, found.classes, found.test, quick)
    )
    return Classes(train, None, test, LeNet(channels=(20, 50, 50), init="glorot"), found.classes)


def _parts(
    labels: Int64[np.ndarray, " row"], names: Sequence[str], test: Bool[np.ndarray, " row"] | None, quick: bool
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Rows that train and rows that test; where nobody says which, a quarter of each class tests, drawn once."""
    random, parts = np.random.default_rng(0), ([], [])
    for k, name in enumerate(names):
        own = random.permutation(np.flatnonzero(labels == k))
        tests = np.arange(len(own)) < max(1, len(own) // TESTED) if test is None else test[own]
        if not 0 < tests.sum() < len(own):
            raise InputError(
                "Each class must have rows to train and to test, two where nobody says which. "
                f"'{name}' has {len(own)}, {tests.sum()} to test: add some, or leave the class out."
            )
        for part, chosen in zip(parts, (own[~tests], own[tests]), strict=True):
            part.append(np.sort(chosen)[: FEW if quick else None])
    train, judged = (np.concatenate(part) for part in parts)
    return train, judged
