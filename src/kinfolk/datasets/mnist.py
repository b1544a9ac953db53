"""Handwritten digits, 28 x 28."""

from __future__ import annotations

from kinfolk.datasets import idx
from kinfolk.datasets.base import Images

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist")
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def mnist() -> Images:
    """MNIST: 60,000 and 10,000 handwritten digits of 28 x 28 pixels, from ``$KINFOLK_DATA/mnist`` or downloaded.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998). Gradient-based learning applied to document recognition.
    Proceedings of the IEEE 86.
    """
    return idx.images("mnist", SHA256, MIRRORS, tuple("0123456789"))
