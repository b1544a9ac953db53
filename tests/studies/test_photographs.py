"""Faces in photographs, from little folders in the form in which MTFL is published, and the study on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kinfolk.exceptions import InputError
from kinfolk.studies import running
from kinfolk.studies.auxiliary_tasks import ARMS, BEST, ERROR, RELATED, SHUFFLED, AuxiliaryTasks
from kinfolk.studies.base import Trial
from kinfolk.studies.faces import EYES, SIDE, Faces, render
from kinfolk.studies.photographs import EXTENTS, LARGER, SHIFT, Photographs

image = pytest.importorskip("PIL.Image")

TRAINING, TESTS = 260, 30
DRAWN = 12  # pictures, each in many lines
LARGE, EDGE = 96, 20  # pixels of a face in a photograph, and beside it


def photographed(root: Path) -> Path:
    """Rendered faces as photographs: those that test have a background of other grey."""
    for part, folder, lines, grey in (("training", "lfw_5590", TRAINING, 0.2), ("testing", "AFLW", TESTS, 0.9)):
        (root / folder).mkdir(parents=True)
        faces = render(DRAWN, seed=lines)
        for i, face in enumerate(faces.pictures[:, 0]):
            wide = np.full((LARGE + 2 * EDGE, LARGE + 2 * EDGE), grey)
            wide[EDGE:-EDGE, EDGE:-EDGE] = _enlarged(face)
            image.fromarray((255 * wide.clip(0, 1)).astype(np.uint8)).save(root / folder / f"{i}.png")
        (root / f"{part}.txt").write_text("".join(_line(faces, i % DRAWN, folder) for i in range(lines)))
    return root


def _enlarged(face: np.ndarray) -> np.ndarray:
    return np.asarray(image.fromarray(face.astype(np.float32)).resize((LARGE, LARGE)))


def _line(faces: Faces, i: int, folder: str) -> str:
    at = (faces.landmarks[i] + 0.5) * LARGE + EDGE
    pose, gender, glasses, smile, _ = faces.attributes[i].tolist()
    numbers = [*at[:, 0], *at[:, 1]]
    told = f"{gender + 1} {2 - smile} {2 - glasses} {pose + 1}"
    return f" {folder}\\{i}.png {' '.join(f'{n:.3f}' for n in numbers)} {told}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(photographed(tmp_path_factory.mktemp("photographs") / "MTFL"))


def test_photographs_are_grey_squares_with_landmarks_in_them(folder: str) -> None:
    faces = Photographs(folder).training(100, 0)
    assert faces.pictures.shape == (100, 1, SIDE, SIDE)
    assert 0 <= faces.pictures.min() < faces.pictures.max() <= 1
    assert dict(Photographs.classes) == {"gender": 2, "smile": 2, "glasses": 2, "pose": 5}
    assert bool((faces.attributes < list(Photographs.classes.values())).all())
    left, right = faces.landmarks[:, EYES].swapaxes(0, 1)
    grey = [_grey(faces, points).mean() for points in (left, right, (left + right) / 2)]
    assert max(grey[:2]) < 0.85 * grey[2]  # eyes are dark, so landmarks are where the picture has them


def _grey(faces: Faces, points: np.ndarray) -> np.ndarray:
    column, row = ((points + 0.5) * SIDE).astype(int).clip(0, SIDE - 1).T
    return faces.pictures[np.arange(len(points)), 0, row, column]


def test_squares_do_not_give_landmarks_away(folder: str) -> None:
    landmarks = Photographs(folder).training(TRAINING, 0).landmarks
    least, most = landmarks.min(1), landmarks.max(1)
    middle, extent = (least + most) / 2, (most - least).max(1)
    pixel = 1 / 50  # squares have whole ones
    assert np.abs(middle).max() <= SHIFT + pixel
    assert middle.std(0).min() > SHIFT / 2
    assert 1 / (1 + LARGER) - pixel < (EXTENTS * extent).min() < (EXTENTS * extent).max() < 1 / (1 - LARGER) + pixel
    assert np.abs(landmarks).max() < 0.5  # inside


def test_seeds_choose_training_faces_and_all_test_faces_test(folder: str) -> None:
    source = Photographs(folder)
    one, again, other = source.training(50, 0), source.training(50, 0), source.training(50, 1)
    assert np.array_equal(one.pictures, again.pictures)
    assert not np.array_equal(one.landmarks, other.landmarks)
    whole = [_rows(source.training(TRAINING, seed)) for seed in (0, 1)]
    assert whole[0] == whole[1]  # a face is cut out alike for all seeds
    assert _rows(one) < whole[0]
    tests = source.test()
    assert len(tests.pictures) == TESTS
    assert not _rows(tests) & whole[0]


def _rows(faces: Faces) -> set[bytes]:
    return {picture.tobytes() for picture in faces.pictures}


def test_the_study_runs_on_photographs(folder: str, tmp_path: Path) -> None:
    study = AuxiliaryTasks(photographs=folder)
    result = running.run(study, tmp_path / "run", seeds=1, quick=True)
    errors = result.rows[result.rows["measure"].isin([ERROR, BEST])]
    assert set(errors["arm"]) == set(ARMS)
    assert all(1 < value < 300 for value in errors["value"])
    assert result.findings[-1].what == "attributes stopped, of 4"
    assert all(finding.published is None for finding in result.findings)
    assert "not the paper's boxes" in result.remarks[1]
    assert "all published test faces" in result.remarks[2]


def test_tasks_are_those_of_the_photographs(folder: str) -> None:
    study = AuxiliaryTasks(photographs=folder)
    trials = [Trial(arm, {"arm": arm, "seed": 0, "faces": 50, "epochs": 3}) for arm in (RELATED, SHUFFLED)]
    related, shuffled = (study._training(trial, 3) for trial in trials)
    assert [task.name for task in related.tasks] == ["landmarks", *Photographs.classes]
    assert not related.problem.targets[1].equal(shuffled.problem.targets[1])


def test_trials_of_rendered_faces_are_what_they_were(folder: str) -> None:
    """Their names and arguments name finished results, which must be found again."""
    trials = AuxiliaryTasks().trials(5, False)
    assert [trial.name for trial in trials][:5] == [
        "alone, seed 0", "related, seed 0", "shuffled, seed 0", "related, stopped by task, seed 0", "alone, seed 1",
    ]  # fmt: skip
    assert dict(trials[0].arguments) == {"arm": "alone", "seed": 0, "faces": 300, "epochs": 100}
    assert running._place(trials[0]) == "trials/alone-seed-0-6aed87a2"


def _no_picture(root: Path) -> None:
    (root / "lfw_5590" / "3.png").write_bytes(b"no picture")


def _no_tests(root: Path) -> None:
    (root / "testing.txt").write_text("")


def _eyes_together(root: Path) -> None:
    lines = (root / "training.txt").read_text().splitlines()
    words = lines[0].split()
    words[2], words[7] = words[1], words[6]
    (root / "training.txt").write_text("\n".join([" ".join(words), *lines[1:]]))


def _few(root: Path) -> None:
    lines = (root / "training.txt").read_text().splitlines()
    (root / "training.txt").write_text("\n".join(lines[:240]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_no_picture, r"3.png cannot be read as a picture: .* Put the picture there again"),
        (_no_tests, r"There must be test faces in .*testing.txt. It has none"),
        (_eyes_together, r"eyes apart, .* Those of .*0.png are .*: correct its line"),
        (_few, r"There must be 260 training faces .* There are 240: ask for fewer `faces`"),
    ],
)
def test_damaged_photographs_are_one_line(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(photographed(tmp_path))
    source = Photographs(str(tmp_path))
    with pytest.raises(InputError, match=says) as caught:
        _ = source.training(TRAINING, 0), source.test()
    assert "\n" not in str(caught.value)


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`photographs` must be the unpacked folder MTFL. Got .*give the folder"):
        AuxiliaryTasks(photographs=str(tmp_path))
