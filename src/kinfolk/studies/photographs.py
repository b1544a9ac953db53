"""Faces in the photographs of MTFL, cut out around their landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from kinfolk.datasets import pictures
from kinfolk.datasets.mtfl import ATTRIBUTES, CLASSES, mtfl
from kinfolk.datasets.mtfl import Faces as Files
from kinfolk.exceptions import InputError
from kinfolk.studies.faces import EYES, SIDE, Faces, Source

EXTENTS = 2.5
"""Side of the square that is cut out, in widths or heights of the landmarks, whichever is more."""

LARGER, SHIFT = 0.15, 0.1
"""By what share a square is larger or smaller, and by what share of its side shifted across and down, at most."""

GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


@dataclass(frozen=True)
class Photographs(Source):
    """The faces of a folder: :func:`kinfolk.datasets.mtfl`.

    The landmarks are published, and no boxes around the faces, as a detector has them. So a square around the
    landmarks' middle is cut out. Its size and place vary by chance, drawn once for each face of the data set, or the
    square would tell where the landmarks are.

    Parameters
    ----------
    folder
        The unpacked folder MTFL.
    """

    folder: str

    classes: ClassVar[Mapping[str, int]] = {name: len(c) for name, c in zip(ATTRIBUTES, CLASSES, strict=True)}
    tests: ClassVar[str] = "all published"
    remark: ClassVar[str] = (
        "Faces are squares cut out of photographs, chosen here and not the paper's boxes of a detector: "
        f"{EXTENTS:g} times as long as the landmarks extend, up to {100 * LARGER:g} % larger or smaller, around their "
        f"middle, from where they are shifted by up to {100 * SHIFT:g} % of the side. Landmarks say where to cut in "
        "test faces too: the paper's numbers tell the direction alone."
    )

    def training(self, rows: int, seed: int) -> Faces:
        """Some of the published training faces, chosen at random.

        Raises
        ------
        InputError
            If there are fewer, or the files are not as they must be.
        """
        found = mtfl(self.folder)
        there = np.flatnonzero(~found.test)
        if rows > len(there):
            raise InputError(
                f"There must be {rows} training faces in {self.folder}, with those that choose the best epoch. There "
                f"are {len(there)}: ask for fewer `faces`, or give the whole folder."
            )
        return _cut(found, np.random.default_rng([seed, SIDE]).permutation(there)[:rows])

    def test(self) -> Faces:
        """All published test faces."""
        found = mtfl(self.folder)
        if not found.test.any():
            raise InputError(f"There must be test faces in {self.folder}/testing.txt. It has none: unpack MTFL again.")
        return _cut(found, np.flatnonzero(found.test))


def _cut(found: Files, rows: Int64[np.ndarray, " row"]) -> Faces:
    """Squares of photographs in grey, and where landmarks are in them."""
    landmarks = found.landmarks[rows]
    for row, apart in zip(rows, np.linalg.norm(np.diff(landmarks[:, EYES], axis=1), axis=-1), strict=True):
        if not (np.isfinite(found.landmarks[row]).all() and apart > 0):
            raise InputError(
                f"Landmarks must be numbers, and eyes apart, as errors are in parts of their distance. Those of "
                f"{found.paths[row]} are {found.landmarks[row].tolist()}: correct its line, or take it out."
            )
    chance = np.random.default_rng(SIDE).uniform(-1, 1, (len(found.paths), 3))
    corner, side = _squares(landmarks, chance[rows])
    boxes = [(x, y, x + n, y + n) for (x, y), n in zip(corner.tolist(), side.tolist(), strict=True)]
    colours = pictures.read([found.paths[row] for row in rows], SIDE, boxes)
    grey = np.tensordot(np.array(GREY) / 255, colours, (0, 1)).astype(np.float32)
    placed = (landmarks - corner[:, None]) / side[:, None, None] - 0.5
    return Faces(grey[:, None], placed, found.attributes[rows])


def _squares(
    landmarks: Float64[np.ndarray, "row 5 2"], chance: Float64[np.ndarray, "row 3"]
) -> tuple[Int64[np.ndarray, "row 2"], Int64[np.ndarray, " row"]]:
    """Upper left corners and sides, in whole pixels, from draws in [-1, 1]."""
    least, most = landmarks.min(1), landmarks.max(1)
    side = EXTENTS * (most - least).max(1) * (1 + LARGER * chance[:, 0])
    middle = (least + most) / 2 + SHIFT * side[:, None] * chance[:, 1:]
    corner = np.floor(middle - side[:, None] / 2)
    return corner.astype(np.int64), np.ceil(side).astype(np.int64)
