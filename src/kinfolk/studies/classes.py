"""Rows of classes, for studies in which a class is a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from kinfolk import datasets
from kinfolk.trunks import LeNet
from kinfolk.trunks.base import Trunk


@dataclass(frozen=True)
class Classes:
    """Rows of classes: ``[row, ...]``, numbers as the trunk reads them, with the number of each row's class."""

    train: tuple[Float[Tensor, "train ..."], Int64[Tensor, " train"]]
    validation: tuple[Float[Tensor, "validation ..."], Int64[Tensor, " validation"]]
    test: tuple[Float[Tensor, "test ..."], Int64[Tensor, " test"]]
    trunk: Trunk

    @property
    def counts(self) -> Int64[Tensor, " class"]:
        """Training rows of each class."""
        return self.train[1].bincount()


@lru_cache(maxsize=1)  # read by each trial
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
        LeNet(init="glorot"),
    )  # fmt: skip


CLASSES: dict[str, Callable[[], Classes]] = {"mnist": imbalanced_mnist}
"""By the name that the option `data` has."""
