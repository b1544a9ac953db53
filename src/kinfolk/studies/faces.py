"""Faces with five landmarks and attributes, where they come from, and rendered ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

SIDE = 40
"""Pixels of a picture, across and down."""

TEST = 2000
"""Rendered faces that test."""

EYES, NOSE, MOUTH = slice(0, 2), 2, slice(3, 5)
WIDEST = 45.0  # degrees that a head is turned, at most


@dataclass(frozen=True)
class Faces:
    """Faces in grey.

    Attributes
    ----------
    pictures
        ``[row, 1, 40, 40]``, about in [0, 1].
    landmarks
        x and y of both eyes, the nose and both corners of the mouth, in pictures' widths from the middle.
    attributes
        Numbers of classes, in the order of their source.
    """

    pictures: Float[np.ndarray, "row 1 40 40"]
    landmarks: Float[np.ndarray, "row 5 2"]
    attributes: Int[np.ndarray, "row attribute"]


class Source(ABC):
    """Where faces come from; equal ones give equal faces."""

    classes: ClassVar[Mapping[str, int]]
    """The attributes, and how many classes each has."""
    tests: ClassVar[str]
    """How many faces test, in words."""
    remark: ClassVar[str]
    """What is to be known of the faces, in a sentence or two."""

    @abstractmethod
    def training(self, rows: int, seed: int) -> Faces:
        """Faces that train or choose, others for each seed."""

    @abstractmethod
    def test(self) -> Faces:
        """Faces that test, the same for all seeds."""


@dataclass(frozen=True)
class Rendered(Source):
    """Faces that :func:`render` draws: attributes change where landmarks are and how they look."""

    classes: ClassVar[Mapping[str, int]] = {"pose": 5, "gender": 2, "glasses": 2, "smile": 2, "occlusion": 2}
    tests: ClassVar[str] = str(TEST)
    remark: ClassVar[str] = "Faces are rendered: the paper's numbers tell the direction alone."

    def training(self, rows: int, seed: int) -> Faces:
        """New ones."""
        return render(rows, seed)

    def test(self) -> Faces:
        """2,000."""
        return render(TEST, seed=2**20)


def render(rows: int, seed: int) -> Faces:
    """Faces of people who differ in their measures, light and place.

    Pose is the turn of the head, in five steps from left to right; gender is the width of the jaw and the length of
    the hair, which overlap between the two; a smile lifts and parts the corners of the mouth; glasses are rings around
    the eyes; an occlusion is a bar before a part of the face.

    Examples
    --------
    >>> render(2, seed=0).landmarks.shape
    (2, 5, 2)
    """
    random = np.random.default_rng([seed, 40])
    turn = random.uniform(-WIDEST, WIDEST, rows)
    gender, glasses, smile, occlusion = (random.random((4, rows)) < [[0.5], [0.3], [0.5], [0.3]]).astype(np.int64)
    landmarks = _landmarks(random, turn, smile)
    pictures = _shaded(random, rows, landmarks, turn, gender)
    pictures = _drawn(random, pictures, landmarks, smile, glasses, occlusion)
    pose = np.digitize(turn, WIDEST * np.array([-0.6, -0.2, 0.2, 0.6]))
    return Faces(pictures[:, None], landmarks, np.stack([pose, gender, glasses, smile, occlusion], 1))


def _landmarks(random: np.random.Generator, turn: np.ndarray, smile: np.ndarray) -> np.ndarray:
    """Points of a head, turned, tilted and put somewhere, ``[row, 5, 2]``."""
    rows = len(turn)
    eyes, nose, mouth = (
        random.normal(mean, spread, rows) for mean, spread in ((0.13, 0.012), (0.02, 0.015), (0.09, 0.012))
    )
    mouth = mouth + 0.025 * smile
    height = random.normal(-0.1, 0.015, rows)
    lips = random.normal(0.18, 0.015, rows) - 0.02 * smile
    zero = np.zeros(rows)
    across = np.stack([-eyes, eyes, zero, -mouth, mouth], 1)
    down = np.stack([height, height, nose + 0.04, lips, lips], 1)
    depth = np.stack([0.22 + zero, 0.22 + zero, 0.34 + zero, 0.24 + zero, 0.24 + zero], 1)
    angle = np.radians(turn)[:, None]
    x = across * np.cos(angle) + depth * np.sin(angle)
    tilt, size = np.radians(random.normal(0, 10, rows))[:, None], random.uniform(0.85, 1.15, rows)[:, None]
    place = random.normal(0, 0.04, (rows, 1, 2)) - np.stack([0.2 * np.sin(angle), 0 * angle], -1)
    turned = np.stack([x * np.cos(tilt) - down * np.sin(tilt), x * np.sin(tilt) + down * np.cos(tilt)], -1)
    return size[..., None] * turned + place


def _grid() -> tuple[np.ndarray, np.ndarray]:
    middle = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    return np.meshgrid(middle, middle)


def _spot(point: np.ndarray, wide: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """An ellipse with a soft edge around each row's point, ``[row, 40, 40]`` in [0, 1]."""
    x, y = _grid()
    wide, high = (np.broadcast_to(one, len(point))[:, None, None] for one in (wide, high))
    away = ((x - point[:, 0, None, None]) / wide) ** 2 + ((y - point[:, 1, None, None]) / high) ** 2
    return expit(8 * (1 - away))


def _shaded(
    random: np.random.Generator, rows: int, landmarks: np.ndarray, turn: np.ndarray, gender: np.ndarray
) -> np.ndarray:
    """Background, hair and head in a light from one side."""
    x, y = _grid()
    middle = landmarks.mean(1) - np.stack([0.1 * np.sin(np.radians(turn)), np.zeros(rows)], 1)
    jaw = random.normal(0.27, 0.02, rows) - 0.03 * gender
    hair = random.normal(0.36, 0.03, rows) + 0.06 * gender
    back, skin, dark = (random.uniform(*span, (rows, 1, 1)) for span in ((0.1, 0.9), (0.5, 0.9), (0.05, 0.4)))
    picture = np.broadcast_to(back, (rows, SIDE, SIDE))
    for spot, grey in ((_spot(middle - [0, 0.06], jaw + 0.05, hair), dark), (_spot(middle, jaw, 0.36), skin)):
        picture = picture * (1 - spot) + grey * spot
    light = random.normal(0, 0.4, (2, rows, 1, 1))
    return picture * (1 + light[0] * x + light[1] * y)


def _drawn(
    random: np.random.Generator,
    picture: np.ndarray,
    landmarks: np.ndarray,
    smile: np.ndarray,
    glasses: np.ndarray,
    occlusion: np.ndarray,
) -> np.ndarray:
    """Eyes, nose, mouth, glasses and what stands before them; then noise."""
    rows = len(picture)
    contrast = random.uniform(0.4, 0.9, (rows, 1, 1))
    for at in range(2):
        picture = picture * (1 - contrast * _spot(landmarks[:, at], 0.05, 0.03))
        ring = _spot(landmarks[:, at], 0.1, 0.09) - _spot(landmarks[:, at], 0.075, 0.065)
        picture = picture * (1 - 0.7 * ring * glasses[:, None, None])
    picture = picture * (1 - 0.25 * _spot(landmarks[:, NOSE], 0.03, 0.05))
    left, right = landmarks[:, 3], landmarks[:, 4]
    for share in np.linspace(0, 1, 9):  # lips hang between the corners, lower where they smile
        sag = (0.015 + 0.045 * smile) * 4 * share * (1 - share)
        point = left + share * (right - left) + np.stack([np.zeros(rows), sag], 1)
        picture = picture * (1 - 0.35 * contrast * _spot(point, 0.025, 0.018))
    bar = _spot(landmarks.mean(1) + random.normal(0, 0.12, (rows, 2)), 0.14, 0.1) * occlusion[:, None, None]
    picture = picture * (1 - bar) + random.random((rows, 1, 1)) * bar
    return picture + random.normal(0, 0.06, picture.shape)
