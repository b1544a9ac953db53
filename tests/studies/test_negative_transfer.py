"""Capacity, covariances and label noise: the planted laws, training against closed forms, and the study in little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kinfolk.studies import bodies, negative_transfer, running, transfer_table
from kinfolk.studies.negative_transfer import NegativeTransfer
from kinfolk.studies.planted import Covariances, Family, best_shared, family, labelled
from kinfolk.studies.results import Result


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return running.run(NegativeTransfer(), tmp_path_factory.mktemp("transfer") / "run", quick=True)


def law(kappa: float = 100.0, noise: float = 0.3, seed: int = 0) -> Covariances:
    return Covariances(seed, 30, kappa, 0.96, noise)


def test_thetas_have_the_cosine() -> None:
    one, other = law().thetas()
    assert one @ other == pytest.approx(0.96)
    assert [np.linalg.norm(one), np.linalg.norm(other)] == pytest.approx([1, 1])


def test_covariances_are_those_of_the_construction() -> None:
    roots = law().roots()
    grams = {task: root.T @ root for task, root in roots.items()}
    for task, gram in grams.items():
        assert sorted(np.linalg.eigvalsh(gram)) == pytest.approx([1.0] * 27 + [1e4] * 3), task
    assert np.allclose(grams["1"], grams["2"])
    assert np.allclose(grams["2"], grams["4 as printed"])
    large = {task: np.linalg.eigh(gram)[1][:, -3:] for task, gram in grams.items()}
    assert np.abs(large["1"].T @ large["3"]).max() < 1e-6  # other directions, of the same axes
    overlap = np.linalg.svd(large["1"].T @ large["4"])[1]
    assert 0.01 < overlap.max() < 0.99  # a rotation to anywhere
    assert np.allclose(roots["1"] @ roots["3"].T, np.diag(np.diag(roots["1"] @ roots["3"].T)), atol=1e-8)


def test_rows_have_the_law() -> None:
    law = Covariances(1, 30, 5.0, 0.96, 0.3)
    inputs, labels = law.rows("4", 50_000)
    root = law.roots()["4"]
    assert np.abs(inputs.T @ inputs / len(inputs) - root.T @ root).max() < 1
    left = labels - inputs @ law.thetas()[1]
    assert left.std() == pytest.approx(0.3 * law.deviation(), rel=0.01)
    fewer = law.rows("4", 7)
    for part, whole in zip(fewer, law.rows("4", 9), strict=True):
        assert np.allclose(part, whole[:7])


def test_the_risk_is_the_excess_error() -> None:
    one = Covariances(2, 30, 5.0, 0.96, 0.0)
    theta = one.thetas()[1]
    inputs, labels = one.rows("1", 50_000)
    assert np.square(inputs @ theta - labels).mean() / labels.var() == pytest.approx(one.risk(theta), rel=0.05)
    assert one.risk(one.thetas()[0]) == 0


def test_one_shared_unit_is_trained_to_its_optimum() -> None:
    """Where covariances are well conditioned, so that few updates are enough."""
    laws = [Covariances(seed, 30, 3.0, 0.96, 0.3) for seed in range(2)]
    about = [(law, source) for law in laws for source in ("2", "3", "4")]
    settings = [bodies.covariance_parts(law, source, 60, 80) for law, source in about]
    training = bodies.covariance_stack(settings, [law.seed for law, _ in about], bodies.Hard, True).training(800)
    training.run()
    for number, theta in bodies.target_thetas(training, settings).items():
        centred = [(p.inputs - p.inputs.mean(0), p.labels - p.labels.mean()) for p in settings[number]]  # as by biases
        best = best_shared(centred)[0] * settings[number][0].factor
        scale = np.abs(best).max()
        assert np.abs(theta - best).max() < 0.01 * scale
        assert about[number][0].risk(theta) == pytest.approx(about[number][0].risk(best), rel=0.02)


def test_means_over_tasks_weigh_sources_alike() -> None:
    parts = bodies.covariance_parts(law(), "2", 20, 60)
    for by_rows, expected in ((True, [0.5, 1.5]), (False, [1.0, 1.0])):
        stack = bodies.covariance_stack([parts], [0], bodies.Hard, by_rows)
        weights = stack.training(1).network.balancing.get_buffer("factor").tolist()
        assert weights == pytest.approx(expected)


def families(rows: int = 40) -> list[Family]:
    return [family(seed, "linear", 4, 2, 6, rows, 0.5, 0.98) for seed in range(2)]


def test_families_are_near_copies_of_a_few() -> None:
    one = family(0, "relu", 6, 3, 50, 10, 0.0, 0.98)
    cosines = one.thetas @ one.thetas.T
    assert all(cosines[i, i + 3] > 0.9 for i in range(3))
    assert np.abs(cosines[:3, :3] - np.eye(3)).max() < 0.6
    assert one.labels.min() == 0
    expected = np.maximum(np.einsum("trf,tf->tr", one.inputs, one.thetas), 0)
    assert np.allclose(one.labels, expected)


def test_as_wide_as_there_are_tasks_is_single_task() -> None:
    """The paper's proposition, and least squares task by task."""
    data, found = families(), []
    for together, width in ((False, 1), (True, 4), (True, 6)):
        stack = bodies.family_stack(data, together, width, "linear")
        training = stack.training(1000)
        training.run()
        found.append(bodies.family_excess(training, data, stack))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert found[2] == pytest.approx(found[0], abs=1e-4)
    drawn = np.random.default_rng(5).normal(size=(bodies.TEST, 6))
    for i, one in enumerate(data):
        errors = []
        for x, y, theta in zip(one.inputs, one.labels, one.thetas, strict=True):
            design = np.column_stack([x, np.ones(len(x))])
            solved = np.linalg.lstsq(design, y, rcond=None)[0]
            errors.append(np.square(drawn @ (solved[:-1] - theta) + solved[-1]).mean())
        assert found[0][i] == pytest.approx(np.mean(errors), rel=1e-3)


def test_too_narrow_a_body_is_worse_and_a_fitting_one_better() -> None:
    data = [family(seed, "linear", 8, 2, 10, 20, 0.5, 0.99) for seed in range(3)]
    found = {}
    for name, together, width in (("single", False, 1), ("narrow", True, 1), ("fitting", True, 2)):
        stack = bodies.family_stack(data, together, width, "linear")
        training = stack.training(600)
        training.run()
        found[name] = np.array(list(bodies.family_excess(training, data, stack).values()))
    assert (found["narrow"] > found["single"]).all()
    assert (found["fitting"] < found["single"]).all()


def test_noisy_labels_are_coins_in_a_share_of_the_rows() -> None:
    one = labelled(0, 3, 5, 20_000, 10, 0.2, 0.7)
    assert (one.clean != one.noisy).mean() == pytest.approx(0.1, abs=0.01)  # half of the coins fall right
    assert set(np.unique(one.noisy)) == {0.0, 1.0}
    pairs = bodies.pair_stack([labelled(0, 3, 5, 10, 10, 0.2, 0.7)], False, negative_transfer.Fixed)
    assert sorted(one[1:] for one in pairs.about) == [(0, 4), (0, 5), (1, 3), (1, 5), (2, 3), (2, 4)]


def test_all_is_measured_and_told(result: Result) -> None:
    rows = result.rows
    assert set(rows["part"]) == {"capacity", "covariance", "label noise"}
    assert bool(np.isfinite(rows["value"]).all())
    assert set(rows["seed"]) == {0, 1}
    told = {finding.what: finding for finding in result.findings}
    assert told["linear body of width 10 against single-task, excess error"].published == 0
    hurts = told["20 rows of task 1, 60 of task 3, shared against single-task, log10"]
    assert hurts.claim == "positive"
    assert len(hurts.values) == 2
    assert told["20 rows of task 1, 60 of task 4 as printed, shared against single-task, log10"].claim == ""
    assert told["20 rows of task 1: task 2 helps from rows, shared"].published is None


def test_many_rows_of_any_source_help_at_the_optimum() -> None:
    study, errors = NegativeTransfer(), {}
    asked = {"part": "covariance", "target rows": 20, "draws": 4}
    for source, count in (("none", 0), ("2", 1200), ("3", 1200), ("4", 1200)):
        arm = "shared, optimum" if count else "single-task, optimum"
        errors[source] = study._optimum({**asked, "arm": arm, "rows": count}, 0, source)["value"]
    assert max(errors, key=lambda source: errors[source]) == "none"


def test_the_optimum_is_a_minimum() -> None:
    one = law(kappa=10)
    parts = [one.rows("1", 40), one.rows("3", 60)]
    best = best_shared(parts)

    def loss(thetas: list[np.ndarray]) -> float:
        return sum(float(np.square(x @ theta - y).sum()) for (x, y), theta in zip(parts, thetas, strict=True))

    random = np.random.default_rng(0)
    for _ in range(20):
        body = best[0] + 0.01 * np.linalg.norm(best[0]) * random.normal(size=30)
        other = [body * float((x @ body) @ y / np.square(x @ body).sum()) for x, y in parts]
        assert loss(other) >= loss(best)


@pytest.mark.parametrize(
    ("mean", "rows"), [([0.1, 0.2, -0.1], 60), ([-0.1, 0.1, -0.1], 60), ([-1, -1, -1], 15), ([0, 0, 1], 120)]
)
def test_where_a_source_begins_to_help(mean: list[float], rows: int) -> None:
    assert transfer_table._crossing(pd.Series(mean, index=[15, 30, 60])) == rows


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"`weighing` must be 'rows' or 'tasks'\. Got 'sums'"):
        NegativeTransfer(weighing="sums")
    with pytest.raises(ValueError, match=r"`cosine` must be in \[0, 1\]\. Got 2"):
        NegativeTransfer(cosine=2)
    with pytest.raises(ValueError, match=r"`kappa` must be positive"):
        NegativeTransfer(kappa=0)


def test_trials_have_names_of_their_own(tmp_path: Path) -> None:
    for quick in (True, False):
        names = [trial.name for trial in NegativeTransfer().trials(2, quick)]
        assert len(set(names)) == len(names)
