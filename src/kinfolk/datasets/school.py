"""Exam scores of pupils in 139 schools: a regression per school."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from kinfolk.datasets import matlab, origin

SHA256 = "57fb3238fdd03a9aa17276e2ce18d9bbb5d128c3261e794fe6233b58b6909068"
MIRRORS = ("https://raw.githubusercontent.com/jiayuzhou/MALSAR/ca3d55b878cc4113f0d9603e8ac46538aeb1ecd9/data",)
SPLITS = (
    "030c9ca0a73d6264aa1eeac49aba1d760a1b5692cd3124667e74a7a2b7751bc5",
    "63d3a076a4cdd3de81825d3cf0c030b93bdc60e912eaed4763ee224efab163f8",
    "f7f68e3adb50db8094e230c2b83d548790379cd93ad98fadb35ff2999762dbe6",
    "02643928224056a61e25dec8d4841dba5195ed9affdc76fdc697854a2506d142",
    "6ed00a453d582dce4397f6f49120cff803c22f53cfb2dd63a3826c359c24bcdf",
    "ca853babe5b7f0f5812e7f4261f8b5e5728f1b3b06711e56a76b27b7f959f379",
    "b72105509c70f94f48c7c8b0e1359c6c0ea630c7ac588337b412f946ede62283",
    "8ad60073b135220f1a6f49fdd79b4430b6a0c8ce9925a22dcc5a09141f5b1c04",
    "0de74247d93c413b690ebb65e2e7beb1c55f05b2a2d5db46469e673a552cccf2",
    "b408742eab66cd124563493057b080fd39e5075f48b4c391c53e5f6a1a4c8df1",
)
SPLIT_MIRRORS = ("https://raw.githubusercontent.com/tjanez/PyMTL/970607e070b2a0d616d6c6248e6485b99cbb0d8c/data/school",)


@dataclass(frozen=True)
class School:
    """Pupils of the Inner London Education Authority, 1985 to 1987.

    Attributes
    ----------
    inputs
        27 attributes: the year (3 columns of 0 and 1); the percentages of the school's pupils who may eat for free and
        who are in the first band of verbal reasoning; then as 0 and 1 gender (2), the pupil's band (3), ethnic group
        (11), the school's gender (3) and denomination (3). The constant column of the published file is left out.
    scores
        Of the exam, 1 to 70.
    schools
        Numbers of the schools, from 0; the rows of a school are side by side.
    """

    inputs: Float64[np.ndarray, "row feature"]
    scores: Float64[np.ndarray, " row"]
    schools: Int64[np.ndarray, " row"]


def school() -> School:
    """School: 15,362 exam scores in 139 schools, from ``$KINFOLK_DATA/school/school.mat`` or downloaded.

    The file is the one that MALSAR ships; no licence is stated there.

    References
    ----------
    H. Goldstein (1991). Multilevel modelling of survey data. The Statistician 40, 235-244.
    """
    inputs, scores = matlab.read(origin.file("school", "school.mat", SHA256, MIRRORS), ("X", "Y"))
    sizes = [len(one) for one in inputs[0]]
    return School(
        np.concatenate(list(inputs[0])).astype(np.float64)[:, :-1],
        np.concatenate(list(scores[0])).astype(np.float64)[:, 0],
        np.repeat(np.arange(len(sizes)), sizes),
    )


def school_split(number: int) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Training and test rows of School in one of the ten random splits that papers use, numbered from 1.

    Each has 11,472 training and 3,890 test rows, of every school. They come from
    ``$KINFOLK_DATA/school_pymtl/school_<number>_indexes.mat``, or are downloaded.

    Raises
    ------
    ValueError
        For a number that is not in 1 to 10.

    References
    ----------
    A. Argyriou, T. Evgeniou, M. Pontil (2008). Convex multi-task feature learning. Machine Learning 73, 243-272.
    """
    if not 1 <= number <= len(SPLITS):
        raise ValueError(f"`number` must be from 1 to {len(SPLITS)}. Got {number}.")
    name = f"school_{number}_indexes.mat"
    found = matlab.read(origin.file("school_pymtl", name, SPLITS[number - 1], SPLIT_MIRRORS), ("tr", "tst"))
    train, test = (rows.ravel().astype(np.int64) - 1 for rows in found)
    return train, test
