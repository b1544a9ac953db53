"""Pictures in files, of whatever size, which are read when they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from kinfolk.exceptions import InputError


@dataclass(frozen=True)
class Pictures:
    """Files of pictures with a class each.

    Attributes
    ----------
    paths
        One per row.
    labels
        Numbers of classes, from 0.
    classes
        Their names.
    test
        Which rows are test rows; None where the data set does not say.
    """

    paths: tuple[Path, ...]
    labels: Int64[np.ndarray, " row"]
    classes: tuple[str, ...]
    test: Bool[np.ndarray, " row"] | None = None

    def read(self, rows: Iterable[int], size: int) -> UInt8[np.ndarray, "picture 3 size size"]:
        """Some of the pictures in red, green and blue, 0 to 255; see :func:`read`."""
        return read([self.paths[row] for row in rows], size)


Box = tuple[int, int, int, int]
"""Left, upper, right and lower edge in pixels."""


def read(
    paths: Iterable[Path], size: int, boxes: Sequence[Box] | None = None
) -> UInt8[np.ndarray, "picture 3 size size"]:
    """Pictures, scaled so that the shorter side has ``size`` pixels, and the middle square of that.

    Parameters
    ----------
    paths
        Of the files.
    size
        Pixels, across and down.
    boxes
        What is taken of each picture, black where it reaches beyond. None: all of it.

    Raises
    ------
    InputError
        If a file is not there or is no picture, or Pillow (extra ``images``) is absent.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError("Pictures are read by Pillow, not installed here: pip install kinfolk[images]") from error
    found = []
    for path, box in zip(paths, repeat(None) if boxes is None else boxes, strict=boxes is not None):
        try:
            with Image.open(path) as picture:
                taken = picture.convert("RGB").crop(box)  # no box: a copy
                square = ImageOps.fit(taken, (size, size), Image.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{path} cannot be read as a picture: {' '.join(str(error).split())}. "
                "Put the picture there again, or take it out of the data set."
            ) from error
        found.append(np.asarray(square, np.uint8).transpose(2, 0, 1))
    return np.stack(found) if found else np.zeros((0, 3, size, size), np.uint8)


def words(path: Path, columns: int = 0) -> list[list[str]]:
    """The lines of a text file as words; empty ones are left out.

    Raises
    ------
    InputError
        If there is no such file, or a line has not as many words as there are ``columns`` (0: any number).
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    found = [(number, line.split()) for number, line in enumerate(lines, 1)]
    for number, line in found:
        if line and columns and len(line) != columns:
            raise InputError(f"{path} must have {columns} words in a line. Line {number} has {len(line)}.")
    return [line for _, line in found if line]


def numbers(path: Path, kind: type = float) -> np.ndarray:
    """The numbers in a text file ``[line, word]``; the lines must have equally many.

    Raises
    ------
    InputError
        If there is no such file, or something in it is no number.
    """
    lines = words(path)
    if len({len(line) for line in lines}) > 1:
        raise InputError(f"{path} must have equally many numbers in each line. It has not.")
    try:
        return np.array([[kind(word) for word in line] for line in lines])
    except ValueError as error:
        raise InputError(f"{path} must hold numbers: {error}.") from error
