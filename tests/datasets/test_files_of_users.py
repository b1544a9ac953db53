"""Data sets of which users have the files, read from little files in the published forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kinfolk.datasets import awa2, cub, image_folder, mtfl, pictures
from kinfolk.exceptions import InputError

image = pytest.importorskip("PIL.Image")


def picture(path: Path, colour: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", size, colour).save(path)


def animals(root: Path) -> Path:
    """Two classes with three attributes, four pictures with five features."""
    features = root / "Features" / "ResNet101"
    features.mkdir(parents=True)
    (root / "classes.txt").write_text("       1\tantelope\n       2\tgrizzly+bear\n")
    (root / "predicates.txt").write_text("       1\tblack\n       2\twhite\n       3\tfurry\n")
    (root / "predicate-matrix-binary.txt").write_text("0 1 1\n1 0 1\n")
    (features / "AwA2-labels.txt").write_text("1\n1\n2\n2\n")
    (features / "AwA2-filenames.txt").write_text("".join(f"picture_{i}.jpg\n" for i in range(4)))
    np.savetxt(features / "AwA2-features.txt", np.arange(20).reshape(4, 5) / 4, fmt="%.6g")
    return root


def birds(root: Path) -> Path:
    names = ["001.Albatross/a_1.jpg", "001.Albatross/a_2.jpg", "002.Wren/w_1.jpg"]
    for name in names:
        picture(root / "images" / name)
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n3 2\n")
    (root / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Wren\n")
    return root


def faces(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    at = "1 2 3 4 5 10 20 30 40 50"
    (root / "training.txt").write_text(f" lfw_5590\\Ann_0001.jpg {at} 2 1 2 3\n net_7876\\0_1.jpg {at} 1 2 1 5 \n\n")
    (root / "testing.txt").write_text(f"AFLW\\one.jpg {at} 1 1 1 1\n")
    picture(root / "lfw_5590" / "Ann_0001.jpg")
    return root


def classes(root: Path) -> Path:
    picture(root / "cats" / "b.png", (0, 255, 0))
    picture(root / "cats" / "more" / "a.JPG", (0, 255, 0))
    picture(root / "dogs" / "c.png", (0, 0, 255))
    (root / "dogs" / "notes.txt").write_text("no picture")
    (root / "empty").mkdir()
    return root


def test_awa2(tmp_path: Path) -> None:
    found = awa2(animals(tmp_path))
    assert found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs, np.arange(20, dtype=np.float32).reshape(4, 5) / 4)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.classes == ("antelope", "grizzly+bear")
    assert found.predicates == ("black", "white", "furry")
    assert found.attributes[found.labels][:, 0].tolist() == [False, False, True, True]
    assert found.files[3] == "picture_3.jpg"


def test_cub(tmp_path: Path) -> None:
    found = cub(birds(tmp_path))
    assert found.labels.tolist() == [0, 0, 1]
    assert found.classes == ("Albatross", "Wren")
    assert found.test is not None
    assert found.test.tolist() == [False, True, False]
    read = found.read([2, 0], 3)
    assert (read.shape, read.dtype) == ((2, 3, 3, 3), np.uint8)
    assert read[:, 0].min() > 240
    assert read[:, 1:].max() < 15


def test_mtfl(tmp_path: Path) -> None:
    found = mtfl(faces(tmp_path))
    assert found.landmarks.shape == (3, 5, 2)
    assert found.landmarks[0, 4].tolist() == [5, 50]
    assert found.attributes.tolist() == [[1, 0, 1, 2], [0, 1, 0, 4], [0, 0, 0, 0]]
    assert [found.classes[name][code] for name, code in zip(found.classes, found.attributes[0], strict=True)] == [
        "female", "yes", "no", "front",
    ]  # fmt: skip
    assert found.test.tolist() == [False, False, True]
    assert pictures.read(found.paths[:1], 2).shape == (1, 3, 2, 2)


def test_a_part_of_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    half = image.new("RGB", (8, 8), (255, 0, 0))
    half.paste((0, 0, 255), (4, 0, 8, 8))
    half.save(path)
    left, right, beyond = pictures.read([path] * 3, 4, [(0, 0, 4, 4), (4, 4, 8, 8), (4, 0, 12, 8)])
    assert left.mean((1, 2)).tolist() == [255, 0, 0]
    assert right.mean((1, 2)).tolist() == [0, 0, 255]
    assert (beyond[2, :, 0].tolist(), beyond[:, :, 3].max()) == ([255] * 4, 0)  # black beside the picture
    with pytest.raises(InputError, match=r"half.png cannot be read as a picture: .* Put the picture there again"):
        pictures.read([path], 4, [(0, 0, 10**6, 10**6)])


def test_a_folder_of_classes(tmp_path: Path) -> None:
    found = image_folder(classes(tmp_path))
    assert found.classes == ("cats", "dogs")
    assert [path.name for path in found.paths] == ["b.png", "a.JPG", "c.png"]
    assert found.labels.tolist() == [0, 0, 1]
    assert found.test is None
    assert found.read([0, 2], 2).mean((2, 3)).tolist() == [[0, 255, 0], [0, 0, 255]]
    assert found.read([], 2).shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    ("make", "load", "name", "content", "says"),
    [
        (animals, awa2, "predicate-matrix-binary.txt", "0 1\n1 0\n", "matrix of 2 x 2"),
        (animals, awa2, "predicate-matrix-binary.txt", "0 1 1\n1 0\n", "equally many numbers"),
        (animals, awa2, "predicate-matrix-binary.txt", "0 1 x\n1 0 1\n", "must hold numbers"),
        (animals, awa2, "Features/ResNet101/AwA2-labels.txt", "1\n2\n3\n1\n", "from 1 to 2"),
        (animals, awa2, "Features/ResNet101/AwA2-labels.txt", "1\n2\n", "2 labels"),
        (animals, awa2, "Features/ResNet101/AwA2-features.txt", "1 2\n3 x\n", "must hold numbers"),
        (animals, awa2, "Features/ResNet101/AwA2-features.txt", None, "There must be a file"),
        (animals, awa2, "classes.txt", None, "cannot be read"),
        (birds, cub, "classes.txt", "1 001.Albatross\n", "the same pictures and classes"),
        (birds, cub, "images.txt", "1 a b.jpg\n", "Line 1 has 3"),
        (faces, mtfl, "testing.txt", "a.jpg 1 2\n", "15 words"),
        (faces, mtfl, "testing.txt", "a.jpg 1 2 3 4 5 1 2 3 4 5 1 1 1 9\n", "from 1 to 2, 2, 2, 5"),
        (faces, mtfl, "testing.txt", "a.jpg 1 2 3 4 5 1 2 3 4 5 1 1 1 x\n", "must hold numbers"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path,
    make: Callable[[Path], Path],
    load: Callable[[Path], object],
    name: str,
    content: str | None,
    says: str,
) -> None:
    file = make(tmp_path) / name
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_and_pictures_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is none"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="It has 0"):
        image_folder(tmp_path)
    found = image_folder(classes(tmp_path))
    found.paths[0].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b.png cannot be read as a picture"):
        found.read([0], 2)
