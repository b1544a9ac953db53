"""AMTFL with one hidden layer: its data, the choice of settings, transfer, and the quick form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kinfolk.exceptions import InputError
from kinfolk.runs import Folder
from kinfolk.studies import shallow
from kinfolk.studies.amtfl_shallow import ARMS, AmtflShallow, _weights, chosen
from kinfolk.studies.base import Trial
from kinfolk.studies.results import Result
from kinfolk.studies.shallow import BACK, FORTH, TEST, VALIDATION


def test_synthetic_tasks_share_two_bases_between_groups() -> None:
    made = shallow.synthetic(2, False, 12)
    observed = made.problem.observed
    assert observed.shape == (2 * 12 * 130, 12)
    assert bool((observed.sum(1) == 1).all()), "a row belongs to one task"
    residuals, solutions = [], []
    fit = made.fits[0]
    assert fit.validation is not None
    assert fit.test is not None
    assert (len(fit.train), len(fit.validation), len(fit.test)) == (360, 600, 600)
    first = torch.cat([fit.train, fit.validation, fit.test])
    for task in range(12):
        rows = first[observed[first, task]]
        x, y = made.problem.inputs[rows].double().numpy(), made.problem.targets[task][rows].double().numpy()
        weights, rest, *_ = np.linalg.lstsq(x, y * fit.scale, rcond=None)
        residuals.append(np.sqrt(rest[0] / (130 - 20)))
        solutions.append(weights)
    assert np.mean(residuals[:6]) == pytest.approx(1, abs=0.1)
    assert np.mean(residuals[6:]) == pytest.approx(2, abs=0.2)
    easy = np.linalg.svd(np.stack(solutions[:6]), compute_uv=False)
    assert easy[4] < 0.2 * easy[0], "easy tasks lie in the four bases 1 to 4, but for noise"


def test_components_are_those_of_the_training_rows() -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((60, 8)) * np.array([9, 5, 3, 1, 1, 1, 1, 1])
    found = shallow._components(inputs, 40, 3)
    assert found.shape == (60, 3)
    np.testing.assert_allclose(found[:40].mean(0), 0, atol=1e-9)
    covariance = np.cov(found[:40].T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert found[:40, 0].std() == pytest.approx(1)
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_inputs_that_do_not_vary_become_nothing() -> None:
    x = np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 7.0]])
    np.testing.assert_array_equal(shallow.standardised(x, np.array([0, 1])), [[-1, 0], [1, 0], [7, 0]])


def test_errors() -> None:
    outputs = torch.tensor([[0.2, 0.1, -1.0], [0.0, 2.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert shallow.wrong_class(outputs, labels, everything) == 50
    assert shallow.wrong_sign(outputs, labels, everything) == pytest.approx(100 * 2 / 6)
    assert shallow.rmse(outputs, labels, torch.eye(2, 3, dtype=torch.bool)) == pytest.approx(np.sqrt((0.64 + 4) / 2))


def test_schools_have_rows_of_their_own_and_no_test_row_chooses(data_folder: Path) -> None:
    made = shallow.school(2, False, 12)
    assert made.problem.observed.shape == (2 * 15362, 139)
    inner, whole = made.fits[2:]
    assert inner.test is None
    assert whole.validation is None
    assert inner.validation is not None
    assert whole.test is not None
    assert (len(whole.train), len(whole.test)) == (11472, 3890)
    parts = torch.cat([inner.train, inner.validation])
    assert torch.equal(parts.sort().values, whole.train.sort().values)
    assert len(inner.validation) == pytest.approx(0.2 * 11472, rel=0.1)
    assert float(made.problem.inputs[whole.train].mean(0).abs().max()) < 1e-4
    values = torch.stack([t[whole.train] for t in made.problem.targets], 1)[made.problem.observed[whole.train]]
    assert float(values.std()) == pytest.approx(1, abs=1e-3)


def test_digits_are_a_task_per_class(data_folder: Path) -> None:
    for made in (shallow.mnist(1, False, 500), shallow.kang(1, False, 500)):
        assert made.problem.complete
        assert bool((torch.stack(list(made.problem.targets), 1).sum(1) == 1).all())
        fit = made.fits[0]
        assert fit.validation is not None
        assert fit.test is not None
        assert (len(fit.train), len(fit.validation), len(fit.test)) == (1000, 500, 500)


def test_tasks_weigh_as_they_have_rows_or_by_the_root() -> None:
    made = shallow.synthetic(1, False, 12)
    assert list(_weights(made, 1.0).values()) == [1.0] * 12
    fewer = made.problem.observed.clone()
    fewer[:, 0] &= torch.arange(len(fewer)) % 4 == 0
    less = shallow.Shallow(
        type(made.problem)(
            made.problem.inputs, made.problem.targets, fewer, made.problem.weight, made.problem.tasks
        ), *(getattr(made, n) for n in ("fits", "hidden", "error", "unit", "batch", "updates")),
    )  # fmt: skip
    share = float(fewer[:, 0].sum() / fewer[:, 1].sum())
    for power in (1.0, 0.5):
        weights = list(_weights(less, power).values())
        assert weights[0] / weights[1] == pytest.approx(share**power)
        assert np.mean(weights) == pytest.approx(1)


def test_the_setting_is_chosen_on_validation_rows_for_each_split() -> None:
    rows = [
        {
            "data": "MNIST",
            "arm": arm,
            "setting": setting,
            "rate": rate,
            "seed": seed,
            "measure": measure,
            "value": value,
        }
        for arm, setting, rate, seed, (validation, test) in [
            ("NN", "a", 0.1, 0, (5.0, 9.0)),
            ("NN", "b", 0.1, 0, (4.0, 11.0)),
            ("NN", "b", 0.2, 0, (np.nan, 1.0)),
            ("NN", "a", 0.1, 1, (3.0, 8.0)),
            ("NN", "b", 0.1, 1, (4.0, 7.0)),
            ("AMTFL", "c", 0.1, 0, (4.0, 10.0)),
            ("AMTFL", "c", 0.1, 1, (4.0, 6.0)),
        ]
        for measure, value in ((VALIDATION, validation), (TEST, test))
    ]
    frame = pd.DataFrame(rows)
    best = chosen(frame)
    picked = best[best["measure"] == TEST]
    assert picked["arm"].tolist() == ["NN", "NN", "AMTFL", "AMTFL"]
    assert picked["value"].tolist() == [11.0, 8.0, 10.0, 6.0]
    found = {f.what: f for f in AmtflShallow().findings(frame)}
    assert found["MNIST, NN, test error"].published == 8.96
    assert found["MNIST, AMTFL less NN"].values == (-1.0, -2.0)
    assert (found["MNIST, AMTFL less NN"].published, found["MNIST, AMTFL less NN"].claim) == (-0.28, "negative")


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`tables` must be of School, MNIST, Synthetic. Got Room"):
        AmtflShallow(tables=["Room"])
    with pytest.raises(ValueError, match=r"`tables` must have one at least"):
        AmtflShallow(tables=[])


def test_numbers_out_of_their_range_are_refused() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"hidden": [20]}, r"`hidden` must be 4 numbers, of School, MNIST, Synthetic, AWA2\. Got \[20\]"),
        ({"hidden": [12, 0, 12, 9]}, "`hidden` must be at least 1"),
        ({"rates": [0.0]}, "`rates` must be positive"),
        ({"strengths": [-1.0]}, "`strengths` must be at least 0"),
        ({"gammas": [-1.0]}, "`gammas` must be at least 0"),
        ({"alphas": [-1.0]}, "`alphas` must be at least 0"),
        ({"alphas": []}, "`alphas` must have one at least"),
    ]
    for options, said in bad:
        with pytest.raises(ValueError, match=said):
            AmtflShallow(**options)


def test_what_is_given_twice_counts_once() -> None:
    names = ("tables", "rates", "strengths", "alphas", "gammas")
    numbers: dict[str, Any] = {name: [0.2, 0.1, 0.2] for name in names[1:]}
    study = AmtflShallow(tables=["MNIST"] * 2, **numbers)
    assert [getattr(study, name) for name in names] == [("MNIST",), *[(0.2, 0.1)] * 4]


def test_a_wrong_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`awa2` must be .* and there is no file .*AwA2-features.txt: give"):
        AmtflShallow(awa2=str(tmp_path))


def test_synthetic_tasks_run_without_any_file(tmp_path: Path) -> None:
    study = AmtflShallow(tables=["Synthetic"])
    trials = study.trials(2, True)
    assert [trial.arguments["arm"] for trial in trials] == list(ARMS)
    rows: list[dict[str, Any]] = [row for trial in trials for row in study.run(trial, Folder(tmp_path / trial.name))]
    frame = pd.DataFrame(rows)
    assert np.isfinite(frame["value"]).all()
    assert {FORTH, BACK} <= set(frame["measure"])
    whats = [finding.what for finding in study.findings(frame)]
    assert "Synthetic, AMTFL, more transfer from easy to hard" in whats
    assert study.seconds(trials[0]) > 0


def test_without_feedback_and_price_it_is_mt_nn(tmp_path: Path) -> None:
    """``alpha = gamma = 0``: the same losses, and the same numbers."""
    study = AmtflShallow(tables=["Synthetic"], rates=(0.01,))
    asked: dict[str, Any] = {"data": "Synthetic", "seeds": 1, "quick": True}
    plain = {"arm": "MT-NN", "setting": {"strength": 0.1}}
    none = {"arm": "AMTFL", "setting": {"strength": 0.1, "alpha": 0.0, "gamma": 0.0}}
    one, other = (
        study.run(Trial(name, asked | more), Folder(tmp_path / name)) for name, more in (("a", plain), ("b", none))
    )
    assert [row["value"] for row in one] == [row["value"] for row in other]


def test_a_column_of_ones_own(tmp_path: Path) -> None:
    features = tmp_path / "Features/ResNet101"
    features.mkdir(parents=True)
    random = np.random.default_rng(0)
    (tmp_path / "classes.txt").write_text("1 ape\n2 bat\n3 cat\n")
    (tmp_path / "predicates.txt").write_text("1 black\n2 big\n3 alive\n")
    (tmp_path / "predicate-matrix-binary.txt").write_text("0 1 1\n1 0 1\n1 1 1\n")
    labels = np.arange(40) % 3
    (features / "AwA2-labels.txt").write_text("\n".join(map(str, labels + 1)))
    (features / "AwA2-filenames.txt").write_text("\n".join(f"{i}.jpg" for i in range(40)))
    np.savetxt(features / "AwA2-features.txt", np.eye(3)[labels] @ random.random((3, 6)) + random.random((40, 6)) / 9)
    study = AmtflShallow(tables=[], awa2=str(tmp_path), hidden=(1, 1, 1, 8))
    trials = study.trials(2, True)
    frame = pd.DataFrame([row for trial in trials for row in study.run(trial, Folder(tmp_path / "runs"))])
    assert set(frame["data"]) == {"AWA2"}
    assert np.isfinite(frame["value"]).all()
    assert [f.published for f in study.findings(frame)] == [None] * 8


def test_quick_form(quick: Callable[[str], Result], data_folder: Path) -> None:
    result = quick("amtfl-shallow")
    assert set(result.rows["data"]) == {"School", "MNIST", "Synthetic"}
    assert set(result.rows["arm"]) == set(ARMS)
    assert np.isfinite(result.rows["value"]).all()
    whats = [finding.what for finding in result.findings]
    assert {f"{data}, {arm}, test error" for data in ("School", "MNIST") for arm in ARMS} <= set(whats)
    assert all(len(finding.values) == 2 for finding in result.findings)
    assert (result.path / "figure.svg").is_file()
