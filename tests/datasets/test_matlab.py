"""School and the digits of Kang and others: the real files, and files in their form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from kinfolk.datasets import digits_kang, school, school_split
from kinfolk.exceptions import InputError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINFOLK_DATA", str(tmp_path))
    for name in ("school", "school_pymtl", "digits_kang2011"):
        (tmp_path / name).mkdir()
    return tmp_path


def cells(*arrays: np.ndarray) -> np.ndarray:
    found = np.empty((1, len(arrays)), dtype=object)
    found[0] = arrays
    return found


def test_school_as_published(data_folder: Path) -> None:
    found = school()
    assert found.inputs.shape == (15362, 27)
    assert len(np.unique(found.schools)) == 139
    assert found.scores[:3].tolist() == [17, 5, 16]
    assert (found.scores.min(), found.scores.max()) == (1, 70)
    train, test = school_split(1)
    assert (len(train), len(test)) == (11472, 3890)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(15362))
    assert len(np.unique(found.schools[train])) == len(np.unique(found.schools[test])) == 139


@pytest.mark.parametrize(("source", "features"), [("mnist", 87), ("usps", 64)])
def test_digits_as_published(data_folder: Path, source: str, features: int) -> None:
    found = digits_kang(source)
    assert found.inputs.shape == (1000, features)
    assert found.test_inputs.shape == found.validation_inputs.shape == (500, features)
    assert sorted(set(found.labels.tolist())) == list(range(10))


def test_school_from_a_file_of_ones_own(own: Path) -> None:
    x = [np.arange(n * 4).reshape(n, 4).astype(np.uint8) for n in (200, 3)]
    y = [np.full((n, 1), 255, np.uint8) for n in (200, 3)]
    savemat(own / "school/school.mat", {"X": cells(*x), "Y": cells(*y)})
    found = school()
    assert found.inputs.shape == (203, 3)
    assert found.inputs.dtype == found.scores.dtype == np.float64
    assert found.schools[-4:].tolist() == [0, 1, 1, 1]
    savemat(own / "school_pymtl/school_2_indexes.mat", {"tr": np.array([[3, 1]]), "tst": np.array([[2]])})
    train, test = school_split(2)
    assert (train.tolist(), test.tolist()) == ([2, 0], [1])


def test_what_cannot_be(own: Path) -> None:
    with pytest.raises(ValueError, match="from 1 to 10"):
        school_split(0)
    with pytest.raises(ValueError, match="mnist, usps"):
        digits_kang("letters")
    savemat(own / "school/school.mat", {"X": np.eye(2)})
    with pytest.raises(InputError, match="It has no Y"):
        school()
    (own / "digits_kang2011/split1_usps_1000train.mat").write_bytes(b"no such file" * 30)
    with pytest.raises(InputError, match="cannot be read"):
        digits_kang("usps")
