"""Deep-AMTFL on imbalanced classes, in little and on made-up digits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from kinfolk import datasets
from kinfolk.datasets.base import Images
from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.studies import amtfl_table, classes, running
from kinfolk.studies.amtfl_deep import AmtflDeep
from kinfolk.studies.results import Result


def made_up() -> Images:
    """Noise with a bright patch whose place is the class."""
    draws = np.random.default_rng(0)
    labels, test_labels = draws.permutation(np.arange(2400) % 10), draws.permutation(np.arange(300) % 10)

    def images(of: np.ndarray) -> np.ndarray:
        found = draws.integers(0, 60, (len(of), 28, 28), dtype=np.uint8)
        for image, k in zip(found, of, strict=True):
            image[5 * (k // 3) : 5 * (k // 3) + 6, 9 * (k % 3) : 9 * (k % 3) + 8] += 190
        return found

    return Images(images(labels), labels, images(test_labels), test_labels, tuple("0123456789"))


@pytest.fixture(scope="module")
def digits() -> Iterator[Images]:
    images = made_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "mnist", lambda: images)
        classes.read.cache_clear()
        yield images
    classes.read.cache_clear()


@pytest.fixture(scope="module")
def result(digits: Images, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(AmtflDeep(), tmp_path_factory.mktemp("amtfl") / "run", quick=True)


def test_the_first_images_of_each_class_train(digits: Images) -> None:
    found = classes.imbalanced_mnist()
    assert found.counts.tolist() == [200, 180, 160, 140, 120, 100, 80, 60, 40, 20]
    assert found.validation is not None
    assert len(found.train[1]) + len(found.validation[1]) == len(digits.labels)
    for k in range(10):
        first = digits.inputs[digits.labels == k][: 20 * (10 - k)]
        of_class = found.train[0][found.train[1] == k]
        torch.testing.assert_close(of_class.squeeze(1), torch.tensor(first).float() / 255)


def test_all_is_measured_and_told(result: Result) -> None:
    study, rows = AmtflDeep(), cast(Any, result.rows)
    assert set(rows["arm"]) == set(study.arms())
    assert set(rows["seed"]) == {0, 1}
    assert bool(rows["value"].between(0, 100).all())
    last = rows[(rows["measure"] == amtfl_table.ERROR) & (rows["update"] == rows["update"].max())]
    assert len(last) == 2 * len(study.arms())
    told = {finding.what: finding for finding in result.findings}
    for arm, published in amtfl_table.PUBLISHED.items():
        assert told[f"{arm}, test error"].published == published
        values = last[last["arm"] == arm].sort_values("seed")["value"]
        assert told[f"{arm}, test error"].values == tuple(values)
    against = told["Deep-AMTFL against MT-CNN"]
    assert (against.published, against.claim) == (-2.9, "negative")
    for what in ("Deep-AMTFL against {}", "{} against MT-CNN", "{}, test error"):
        assert what.format("Deep-AMTFL, A = 0") in told
    assert "CNN, A = 0 against CNN" in told
    assert all(len(finding.values) == 2 for finding in result.findings)


def test_a_balanced_error_is_the_mean_over_classes(result: Result) -> None:
    rows: Any = result.rows
    one = rows[(rows["arm"] == "MT-CNN") & (rows["seed"] == 0) & (rows["update"] == rows["update"].max())]
    each = one[one["measure"].str.startswith(amtfl_table.OF_CLASS)]["value"]
    assert len(each) == 10
    assert one[one["measure"] == amtfl_table.BALANCED]["value"].item() == pytest.approx(float(each.mean()))


def test_it_learns(digits: Images, tmp_path: Path) -> None:
    study = AmtflDeep(epochs=12)
    (trial,) = [t for t in study.trials(1, False) if t.arguments["arm"] == "CNN"]
    rows = study.run(trial, Folder(tmp_path))
    course = [row["value"] for row in rows if row["measure"] == amtfl_table.ERROR]
    assert len(course) == 10
    assert course[-1] < course[0] - 15


def test_the_learning_rate_falls_at_the_half(digits: Images) -> None:
    study = AmtflDeep()
    training = study._training(study.trials(1, False)[0], classes.imbalanced_mnist(), 11000, 1100)
    assert [training.schedule.factor(update) for update in (0, 5499, 5500, 10999)] == [1, 1, 0.1, 0.1]


def test_arms_differ_in_what_they_are_named_for() -> None:
    arms = AmtflDeep(alpha=0.5, gamma=0.25).arms()
    assert [name for name, arm in arms.items() if arm.softmax] == ["CNN", "CNN, A = 0", "CNN, L1"]
    assert [name for name, arm in arms.items() if arm.balanced] == ["MT-CNN, balanced"]
    full: Any = arms["Deep-AMTFL"].penalties[0]
    held: Any = arms["Deep-AMTFL, A = 0"].penalties[0]
    assert (full.alpha, full.gamma, full.feedback) == (0.5, 0.25, True)
    assert (held.alpha, held.gamma, held.feedback) == (0.5, 0.25, False)
    assert len(AmtflDeep(controls=False).trials(5, quick=False)) == 20


@pytest.mark.parametrize(
    ("option", "value"),
    [("data", "cats"), ("data", None), ("epochs", 0), ("updates", 0), ("alpha", -1), ("price", -1), ("pull", -1)],
)
def test_bad_options(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{option}` must"):
        AmtflDeep(**{option: value})


# ---- further data sets, in little folders of the published forms


def animals(root: Path) -> Path:
    """Three animals, eight rows of six features each."""
    features, draws, labels = root / "Features" / "ResNet101", np.random.default_rng(0), np.arange(24) % 3
    features.mkdir(parents=True)
    (root / "classes.txt").write_text("1\tape\n2\tgrizzly+bear\n3\tcat\n")
    (root / "predicates.txt").write_text("1\tblack\n2\tbig\n")
    (root / "predicate-matrix-binary.txt").write_text("0 1\n1 0\n1 1\n")
    (features / "AwA2-labels.txt").write_text("".join(f"{k + 1}\n" for k in labels))
    (features / "AwA2-filenames.txt").write_text("".join(f"{i}.jpg\n" for i in range(24)))
    np.savetxt(features / "AwA2-features.txt", np.eye(6)[labels] + draws.random((24, 6)) / 9, fmt="%.6g")
    return root


def picture(path: Path, red: int) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", (9, 7), (red, 20, 30)).save(path)


def birds(root: Path) -> Path:
    """Two species with four pictures each, of which the last tests."""
    names = [f"00{k}.Bird_{k}/b_{i}.png" for k in (1, 2) for i in range(4)]
    for i, name in enumerate(names):
        picture(root / "images" / name, 20 * i)
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (root / "image_class_labels.txt").write_text("".join(f"{i} {(i + 3) // 4}\n" for i in range(1, 9)))
    (root / "train_test_split.txt").write_text("".join(f"{i} {int(i % 4 > 0)}\n" for i in range(1, 9)))
    (root / "classes.txt").write_text("1 001.Bird_1\n2 002.Bird_2\n")
    return root


def garden(root: Path) -> Path:
    """Three flowers, eight, five and two pictures."""
    for name, many in (("rose", 8), ("tulip", 5), ("yarrow", 2)):
        for i in range(many):
            picture(root / name / f"{i}.png", 30 * i)
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("further")
    classes.read.cache_clear()
    yield {name: str(make(root / name)) for name, make in (("awa2", animals), ("cub", birds), ("folder", garden))}
    classes.read.cache_clear()


def test_features_are_standardised_on_training_rows(folders: dict[str, str]) -> None:
    found = classes.read(classes.AWA2, folders["awa2"])
    assert found.names == ("ape", "grizzly+bear", "cat")
    assert found.counts.tolist() == [6, 6, 6]
    assert found.test[1].bincount().tolist() == [2, 2, 2]
    assert found.validation is None
    torch.testing.assert_close(found.train[0].mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.train[0].std(0, correction=0), torch.ones(6))
    assert found.watched[1].tolist() == found.train[1].tolist()


def test_birds_are_split_as_published(folders: dict[str, str]) -> None:
    found = classes.read(classes.CUB, folders["cub"])
    assert found.names == ("Bird_1", "Bird_2")
    assert (found.train[0].shape, found.test[0].shape) == ((6, 3, 64, 64), (2, 3, 64, 64))
    assert found.trunk.build(found.train[0].shape[1:]).shapes[-2:] == [torch.Size([50, 4, 4]), torch.Size([500])]
    red = 255 * found.test[0][:, 0].mean((1, 2))
    torch.testing.assert_close(red, torch.tensor([60.0, 140.0]))
    assert found.test[1].tolist() == [0, 1]


def test_a_quarter_of_each_class_tests_where_nobody_says_which(folders: dict[str, str]) -> None:
    found = classes.read(classes.FOLDER, folders["folder"])
    assert found.counts.tolist() == [6, 4, 1]
    assert found.test[1].bincount().tolist() == [2, 1, 1]
    few = classes.read(classes.FOLDER, folders["folder"], quick=True)
    assert few.counts.tolist() == [3, 3, 1]
    torch.testing.assert_close(few.test[0], found.test[0])


def test_a_class_of_one_picture_is_refused(tmp_path: Path) -> None:
    picture(garden(tmp_path) / "zinnia" / "0.png", 0)
    with pytest.raises(InputError, match=r"Each class must have rows .* 'zinnia' has 1, 1 to test") as caught:
        classes.read(classes.FOLDER, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_further_data_sets_stand_beside(
    digits: Images, folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classes, "SIDE", 36)
    classes.read.cache_clear()
    study = AmtflDeep(controls=False, **cast(Any, folders))
    result = running.run(study, tmp_path / "run", quick=True, seeds=1)
    classes.read.cache_clear()
    rows: Any = result.rows
    names = [classes.MNIST, classes.AWA2, classes.CUB, classes.FOLDER]
    assert list(dict.fromkeys(rows["data"])) == names
    assert set(rows[rows["measure"] == amtfl_table.OF_CLASS + "yarrow"]["data"]) == {classes.FOLDER}
    assert set(rows[rows["measure"] == amtfl_table.VALIDATION]["data"]) == {classes.MNIST}
    told = {finding.what: finding for finding in result.findings}
    assert told["CNN, test error"].published == amtfl_table.PUBLISHED["CNN"]
    for name in names[1:]:
        for what in ("CNN, test error", "Deep-AMTFL against MT-CNN", "MT-CNN, test error, mean over classes"):
            assert told[f"{name}, {what}"].published is None
            assert told[f"{name}, {what}"].verdict == ""
    assert all(len(finding.values) == 1 for finding in result.findings)
    assert [remark.partition(":")[0] for remark in result.remarks[-3:]] == ["AWA2", "CUB-200", "Image folder"]


def test_rows_that_do_not_say_of_which_data_set_are_of_digits(result: Result) -> None:
    """Finished trials were written before there were other data sets."""
    rows: Any = result.rows
    assert amtfl_table.findings(rows.drop(columns="data")) == list(result.findings)
    mixed = rows.assign(data=rows["data"].where(rows["seed"] == 0))
    assert amtfl_table.findings(mixed) == list(result.findings)


def test_trials_of_digits_are_what_they_were(folders: dict[str, str]) -> None:
    alone, beside = AmtflDeep().trials(2, False), AmtflDeep(awa2=folders["awa2"]).trials(2, False)
    assert alone[0].name == "CNN, seed 0"
    assert alone[0].arguments == {"arm": "CNN", "seed": 0, "quick": False}
    assert beside[: len(alone)] == alone
    without = AmtflDeep(data=None, awa2=folders["awa2"]).trials(2, False)
    assert without == beside[len(alone) :]
    assert without[0].name == "AWA2, CNN, seed 0"


def test_networks_on_further_data_sets_have_their_own_length(folders: dict[str, str], tmp_path: Path) -> None:
    study = AmtflDeep(data=None, awa2=folders["awa2"], updates=60)
    (trial,) = [t for t in study.trials(1, False) if t.arguments["arm"] == "Deep-AMTFL"]
    rows = study.run(trial, Folder(tmp_path))
    assert max(row["update"] for row in rows) == 60
    course = [row["value"] for row in rows if row["measure"] == amtfl_table.ERROR]
    assert (len(course), course[-1]) == (10, 0)
    assert study.seconds(trial) > 0


@pytest.mark.parametrize("option", ["awa2", "cub", "folder"])
def test_a_wrong_folder_is_one_line(option: str, tmp_path: Path) -> None:
    wrong = tmp_path / ("nowhere" if option == "folder" else "")
    with pytest.raises(InputError, match=f"`{option}` must be .* and there is no .*: give the folder's path") as caught:
        AmtflDeep(**cast(Any, {option: str(wrong)}))
    assert "\n" not in str(caught.value)
