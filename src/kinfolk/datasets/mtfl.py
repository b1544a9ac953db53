"""Faces with five landmarks and four attributes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from kinfolk.datasets import pictures
from kinfolk.exceptions import InputError

ATTRIBUTES = ("gender", "smile", "glasses", "pose")
CLASSES = (
    ("male", "female"),
    ("yes", "no"),
    ("yes", "no"),
    ("left profile", "left", "front", "right", "right profile"),
)
WORDS = 15  # of a line: a path, five x, five y, four attributes


@dataclass(frozen=True)
class Faces:
    """Files of faces.

    Attributes
    ----------
    paths
        One per row; :func:`kinfolk.datasets.pictures.read` reads them.
    landmarks
        x and y of the left eye, the right eye, the nose and the corners of the mouth (left, right), in pixels of the
        picture.
    attributes
        Numbers of classes, from 0, of gender, smile, glasses and pose.
    classes
        Names of the classes, by attribute.
    test
        Which rows are test rows.
    """

    paths: tuple[Path, ...]
    landmarks: Float64[np.ndarray, "row 5 2"]
    attributes: Int64[np.ndarray, "row 4"]
    classes: dict[str, tuple[str, ...]]
    test: Bool[np.ndarray, " row"]


def mtfl(path: Path | str) -> Faces:
    """MTFL: 10,000 training and 2,995 test faces, for users who have the files (for research only).

    Parameters
    ----------
    path
        The unpacked folder ``MTFL``, with training.txt, testing.txt and the folders of pictures. It is published at
        https://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html.

    Raises
    ------
    InputError
        If a file is not there, or a line of it is not in the published form.

    References
    ----------
    Z. Zhang, P. Luo, C. C. Loy, X. Tang (2014). Facial landmark detection by deep multi-task learning. ECCV.
    """
    root = Path(path)
    parts = [pictures.words(root / name, WORDS) for name in ("training.txt", "testing.txt")]
    lines = [line for part in parts for line in part]
    try:
        numbers = np.array([[float(word) for word in line[1:]] for line in lines]).reshape(len(lines), WORDS - 1)
    except ValueError as error:
        raise InputError(f"training.txt and testing.txt in {root} must hold numbers behind a path: {error}.") from error
    attributes = numbers[:, 10:].astype(np.int64) - 1
    most = [len(classes) for classes in CLASSES]
    if len(lines) and ((attributes < 0) | (attributes >= most)).any():
        raise InputError(f"Attributes in {root} must be from 1 to {', '.join(map(str, most))}. Some are not.")
    return Faces(
        tuple(root / line[0].replace("\\", "/") for line in lines),
        np.stack([numbers[:, :5], numbers[:, 5:10]], 2),
        attributes,
        dict(zip(ATTRIBUTES, CLASSES, strict=True)),
        np.repeat([False, True], [len(part) for part in parts]),
    )
