"""The idx form, in which MNIST and its likes are published: gzip, a header of big-endian numbers, bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kinfolk.datasets.base import Images
from kinfolk.datasets.origin import files
from kinfolk.exceptions import InputError

BYTES = 8  # the code of unsigned bytes


def images(folder: str, sha256: Mapping[str, str], mirrors: Sequence[str], classes: tuple[str, ...]) -> Images:
    """A data set of four files: training images and labels, test images and labels."""
    train, train_labels, test, test_labels = (read(path) for path in files(folder, sha256, mirrors))
    return Images(train, train_labels.astype(np.int64), test, test_labels.astype(np.int64), classes)


def read(path: Path) -> UInt8[np.ndarray, " *axis"]:
    """The array in a file ``*-ubyte.gz``.

    Raises
    ------
    InputError
        When it is no such file, or damaged.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
        zero, code, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
        if (zero, code) != (0, BYTES):
            raise ValueError("it is no idx file of unsigned bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}. It may be damaged; remove it to have it anew.") from error
