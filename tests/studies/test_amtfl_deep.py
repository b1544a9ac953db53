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
from kinfolk.runs import Folder
from kinfolk.studies import amtfl_deep, classes, running
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
        classes.imbalanced_mnist.cache_clear()
        yield images
    classes.imbalanced_mnist.cache_clear()


@pytest.fixture(scope="module")
def result(digits: Images, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(AmtflDeep(), tmp_path_factory.mktemp("amtfl") / "run", quick=True)


def test_the_first_images_of_each_class_train(digits: Images) -> None:
    found = classes.imbalanced_mnist()
    assert found.counts.tolist() == [200, 180, 160, 140, 120, 100, 80, 60, 40, 20]
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
    last = rows[(rows["measure"] == amtfl_deep.ERROR) & (rows["update"] == rows["update"].max())]
    assert len(last) == 2 * len(study.arms())
    told = {finding.what: finding for finding in result.findings}
    for arm, published in amtfl_deep.PUBLISHED.items():
        assert told[f"{arm}, test error"].published == published
        values = last[last["arm"] == arm].sort_values("seed")["value"]
        assert told[f"{arm}, test error"].values == tuple(values)
    against = told["Deep-AMTFL against MT-CNN"]
    assert (against.published, against.claim) == (-2.9, "negative")
    assert "Deep-AMTFL against Deep-AMTFL, A = 0" in told
    assert all(len(finding.values) == 2 for finding in result.findings)


def test_a_balanced_error_is_the_mean_over_classes(result: Result) -> None:
    rows: Any = result.rows
    one = rows[(rows["arm"] == "MT-CNN") & (rows["seed"] == 0) & (rows["update"] == rows["update"].max())]
    each = one[one["measure"].str.startswith(amtfl_deep.OF_CLASS)]["value"]
    assert len(each) == 10
    assert one[one["measure"] == amtfl_deep.BALANCED]["value"].item() == pytest.approx(float(each.mean()))


def test_it_learns(digits: Images, tmp_path: Path) -> None:
    study = AmtflDeep(epochs=12)
    (trial,) = [t for t in study.trials(1, False) if t.arguments["arm"] == "CNN"]
    rows = study.run(trial, Folder(tmp_path))
    course = [row["value"] for row in rows if row["measure"] == amtfl_deep.ERROR]
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


@pytest.mark.parametrize(("option", "value"), [("data", "cats"), ("epochs", 0)])
def test_bad_options(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        AmtflDeep(**{option: value})
