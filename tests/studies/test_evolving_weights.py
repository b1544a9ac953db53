"""Evolving weights: who sees what, that arms differ in their weights alone, and the published table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinfolk import datasets, replicas
from kinfolk.datasets.base import Images
from kinfolk.runs import Folder
from kinfolk.studies import evolving_weights, running
from kinfolk.studies.evolving_table import BASELINES, PUBLISHED
from kinfolk.studies.evolving_weights import EvolvingWeights
from kinfolk.studies.results import Result


def made_up() -> Images:
    """Noise with a bright patch whose place is the class."""
    draws = np.random.default_rng(0)
    labels, test_labels = draws.permutation(np.arange(400) % 10), draws.permutation(np.arange(200) % 10)

    def images(of: np.ndarray) -> np.ndarray:
        found = draws.integers(0, 60, (len(of), 28, 28), dtype=np.uint8)
        for image, k in zip(found, of, strict=True):
            image[5 * (k // 3) : 5 * (k // 3) + 6, 9 * (k % 3) : 9 * (k % 3) + 8] += 190
        return found

    return Images(images(labels), labels, images(test_labels), test_labels, tuple("0123456789"))


@pytest.fixture(scope="module", autouse=True)
def digits() -> Iterator[Images]:
    images = made_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "mnist", lambda: images)
        evolving_weights.pool.cache_clear()
        yield images
    evolving_weights.pool.cache_clear()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(
        EvolvingWeights(networks=["NN2"]), tmp_path_factory.mktemp("evolving") / "run", quick=True, processes=1
    )


def test_all_is_measured_and_told(result: Result) -> None:
    rows: Any = result.rows
    assert set(rows["arm"]) == {"baseline", "padded", "exp40", "lin100", "stairs100", "stairs100 alone", "lin"}
    assert set(rows["seed"]) == {0, 1}
    assert bool(rows["value"].between(0, 100).all())
    told = {finding.what: finding for finding in result.findings}
    cell = "NN2, l=20, u=100"
    assert len([what for what in told if what.endswith("- baseline")]) == 6
    assert told[f"{cell}: padded - baseline"].source == "our control"
    errors = rows.set_index(["arm", "seed"])["value"]
    paired = [errors["exp40", seed] - errors["padded", seed] for seed in (0, 1)]
    assert told[f"{cell}: exp40 - padded"].values == pytest.approx(paired)
    assert told[f"{cell}: exp40 - padded"].verdict == ""


def test_all_unlabelled_images_are_asked_for_once() -> None:
    """The paper's last column is 50,000, as many as there are; ``rest`` asks for them too."""
    trials = EvolvingWeights(unlabelled=[10_000, 50_000]).trials(3, False)
    cells = [tuple(trial.arguments[name] for name in ("network", "labelled", "unlabelled", "arm")) for trial in trials]
    assert len(set(cells)) == len(cells)
    assert all(trial.arguments["seeds"] == [0, 1, 2] for trial in trials)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": ["NN5"]}, "`networks` must be of NN1"),
        ({"arms": []}, "`arms` must not be empty"),
        ({"per": "row"}, "`per` must be batch or expected"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"rate": -1.0}, "`rate` must be positive"),
        ({"cost": "mse"}, "`cost` must be one of squared"),
        ({"networks": ["NN2"], "activation": "relu"}, "needs a trunk with activation"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvolvingWeights(**given)


def test_the_published_table() -> None:
    assert PUBLISHED["NN1", 100, 10_000, "exp40"] == PUBLISHED["NN1", 100, 10_000, "lin100"] == -2.21
    assert PUBLISHED["NN1", 100, 49_900, "exp40"] == -2.44
    assert PUBLISHED["NN1", 1000, 0, "lin"] == 1.5
    assert PUBLISHED["NN3", 100, 20_000, "exp40"] == -0.78
    assert PUBLISHED["NN4", 10_000, 40_000, "exp40"] == -0.55
    assert BASELINES["NN2", 10_000] == 5.62
    assert PUBLISHED["NN1", 100, 1000, "stairs100 alone"] == PUBLISHED["NN1", 100, 1000, "stairs100"] == -0.1


def study_and(arm: str, **options: Any) -> tuple[EvolvingWeights, dict[str, Any]]:
    study = EvolvingWeights(**options)
    (trial,) = [t for t in study.trials(2, quick=True) if t.arguments["arm"] == arm]
    return study, dict(trial.arguments)


def test_seeds_draw_labelled_and_unlabelled_images(digits: Images) -> None:
    study, one = study_and("exp40")
    problem = study._problem(one)
    assert problem.observed.sum(0).tolist() == [40, 240]
    assert problem.observed[:, 0].nonzero().flatten().tolist() == [*range(20), *range(120, 140)]
    known = problem.inputs[:120].mul(255).round().byte().view(-1, 28, 28)
    where = [int((torch.tensor(digits.inputs) == image).flatten(1).all(1).nonzero()[0]) for image in known]
    assert len(set(where)) == 120
    assert problem.targets[0][:20].tolist() == digits.labels[where[:20]].tolist()


def test_all_arms_start_from_the_same_weights_on_the_same_images() -> None:
    begun = []
    for arm in ("baseline", "padded", "exp40", "lin"):
        study, one = study_and("exp40")
        training = study._training(study._problem(one), one, arm, one["epochs"])
        begun.append((training, [t.clone() for _, t in replicas.tensors(training.network.model)]))
    for training, tensors in begun[1:]:
        assert all(torch.equal(a, b) for a, b in zip(tensors, begun[0][1], strict=True))
        assert torch.equal(training.network.rows(), begun[1][0].network.rows())
    assert begun[0][0].network.rows().unique().tolist() == [*range(20), *range(120, 140)]
    assert [t.schedule.every for t, _ in begun] == [1, 3, 3, 3]


def test_stairs_alone_goes_on_with_the_labelled_images_where_stairs_goes_on_with_all(tmp_path: Path) -> None:
    """Until t1 both are the same network."""
    study, one = study_and("stairs100")
    both = study._training(study._problem(one), one, "stairs100", one["epochs"])
    first = study._training(study._problem(one), one, "pretraining", one["t1"])
    first.run()
    whole = replicas.tensors(both.network.model)
    both.schedule = first.schedule
    both.run()
    for (name, a), (_, b) in zip(whole, replicas.tensors(first.network.model), strict=True):
        assert torch.equal(a, b), name
    (trial,) = [t for t in study.trials(2, quick=True) if t.arguments["arm"] == "stairs100 alone"]
    assert len(study.run(trial, Folder(tmp_path))) == 2


def test_it_learns(tmp_path: Path) -> None:
    study = EvolvingWeights(labelled=(100,), unlabelled=(100,), epochs=150, tail=15, rest=False, rate=0.1, batch=50)
    found = {}
    for trial in study.trials(1, quick=False):
        if trial.arguments["arm"] in ("padded", "exp40"):
            found[trial.arguments["arm"]] = study.run(trial, Folder(tmp_path))[0]["value"]
    assert found["padded"] < 40
    assert found["exp40"] < 40


def test_trials_of_the_full_form() -> None:
    names = [trial.name for trial in EvolvingWeights().trials(3, quick=False)]
    assert names[0] == "NN1, l=100, u=0, baseline, 3 seeds"
    assert "NN1, l=100, u=49900, exp40, 2 seeds" in names
    assert names[-1] == "NN1, l=1000, u=10000, lin, 3 seeds"
    assert len(names) == 2 + 2 * 6 + 2 * 4 + 2


def test_refuses() -> None:
    with pytest.raises(ValueError, match="`networks` must be of NN1"):
        EvolvingWeights(networks=["NN9"])
    with pytest.raises(ValueError, match="`labelled` must be in"):
        EvolvingWeights(labelled=[0])
