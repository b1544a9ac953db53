"""Mechanisms: what the experiments draw, against the paper's facts, and what holds in the quick form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from kinfolk.exceptions import InputError
from kinfolk.studies import amplification, eavesdropping, inductive_bias, overfitting, patients, peaks, promoted
from kinfolk.studies.mechanism import shuffled
from kinfolk.studies.mechanisms import Mechanisms
from kinfolk.studies.results import Result


def test_codes_are_the_bits_of_equal_parts() -> None:
    assert promoted.code(np.array([-5.0, 5.0, 0.0])).tolist() == [[0] * 10, [1] * 10, [1] + [0] * 9]
    inputs, labels = promoted.draw(0, 50, 100, 100)
    assert inputs.shape == (250, 20)
    values = inputs.reshape(-1, 2, 10) @ 2.0 ** -np.arange(1, 11) * 10 - 5 + 10 / 2**11
    sums = values @ np.array([[1, 1], [1, -1]])
    np.testing.assert_allclose(labels, 1 / (1 + np.exp(-sums)), atol=0.01)


def test_there_are_120_peaks_functions_of_what_the_codes_tell() -> None:
    inputs, labels = peaks.draw(0, 40)
    assert (inputs.shape, labels.shape) == ((40, 60), (40, 120))
    tents = inputs.reshape(40, 6, 10)
    np.testing.assert_allclose(tents.sum(-1), 1)
    variables = tents @ np.linspace(0, 1, 10)
    for column in (0, 17, 119):
        test, then, otherwise = peaks.FUNCTIONS[column]
        expected = [row[then] if row[test] > 0.5 else row[otherwise] for row in variables]
        np.testing.assert_allclose(labels[:, column], expected, atol=1e-12)


def test_pairs_of_functions_are_counted_once() -> None:
    found = peaks.pairs()
    assert sum(len(one) for one, _ in found.values()) == 120 * 119 // 2
    assert set(found) == {(False, shared) for shared in range(4)} | {(True, shared) for shared in (1, 2, 3)}
    assert len(found[True, 3][0]) == 60  # the branches of IF change places
    one, other = found[True, 2]
    assert all(len({*peaks.FUNCTIONS[a]} & {*peaks.FUNCTIONS[b]}) == 2 for a, b in zip(one, other, strict=True))


def test_rank_correlations_are_those_of_scipy() -> None:
    sensitivity = np.random.default_rng(0).random((4, 9))
    found = peaks.rank_correlations(sensitivity)
    for a, b in combinations(range(4), 2):
        assert found[a, b] == pytest.approx(float(spearmanr(sensitivity[a], sensitivity[b]).statistic))  # pyright: ignore[reportAttributeAccessIssue]


def test_noises_of_related_tasks_are_independent() -> None:
    _, hidden, labels = amplification.draw(0, 1.0, 4000)
    noise = np.stack([labels[:, 0] - hidden, labels[:, 2] + hidden])
    assert abs(np.corrcoef(noise)[0, 1]) < 0.05
    assert noise.std(1) == pytest.approx([1, 1], abs=0.05)


@pytest.mark.parametrize("tasks", [1, 4, 16])
def test_equal_tasks_divide_the_variance_of_noise(tasks: int) -> None:
    """The linear case of data amplification, where nothing need be trained."""
    random = np.random.default_rng(0)
    inputs, truth = random.normal(size=(50, 3)), np.array([1.0, -2.0, 0.5])
    labels = (inputs @ truth)[:, None] + random.normal(size=(50, 5000 * tasks))
    fitted = np.linalg.lstsq(inputs, labels.reshape(50, 5000, tasks).mean(2), rcond=None)[0]
    variance = np.diag(np.linalg.inv(inputs.T @ inputs)) / tasks
    np.testing.assert_allclose(fitted.var(1), variance, rtol=0.1)


def test_shuffled_labels_are_the_same_ones_in_other_orders() -> None:
    labels = np.arange(40.0).reshape(20, 2)
    found = shuffled(labels, 1)
    np.testing.assert_array_equal(np.sort(found, 0), labels)
    assert not np.array_equal(found[:, 0] + 1, found[:, 1])


def test_a_probe_finds_what_is_there() -> None:
    hidden = np.random.default_rng(0).normal(size=(400, 5))
    assert eavesdropping.probed(hidden, hidden @ np.arange(5.0)) == pytest.approx(1)
    assert eavesdropping.probed(hidden, np.random.default_rng(1).normal(size=400)) < 0.1


def test_codes_tell_labels_and_disagree_where_they_should() -> None:
    told = lambda inputs: (inputs.reshape(-1, 3, 2) > 0)[..., 0] ^ (inputs.reshape(-1, 3, 2) > 0)[..., 1]  # noqa: E731
    inputs, labels = inductive_bias.draw(np.random.default_rng(0), "AC", 400)
    found = told(inputs)
    assert (found[:, [0, 2]] == labels[:, None]).all()
    assert 0.4 < (found[:, 1] == labels).mean() < 0.6
    inputs, labels = inductive_bias.conflict(np.random.default_rng(0), "B", 100)
    np.testing.assert_array_equal(told(inputs)[:, :2], np.stack([labels, 1 - labels], 1))


def test_the_first_tasks_stay_the_same_when_more_are_added() -> None:
    few, many = overfitting.draw(3, 2, 20), overfitting.draw(3, 5, 20)
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one, other[:2])


def test_patients_have_the_shape_of_medis() -> None:
    basic, laboratory, deaths = patients.draw(0, 20000)
    assert (basic.shape[1], laboratory.shape[1]) == (30, 35)
    assert deaths.mean() == pytest.approx(0.109, abs=0.01)
    assert basic.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("extra_input", r"Unknown `extra_input` 'number'\. Known are: real, code\."),
        ("promoted_init", r"Unknown `promoted_init` 'number'\. Known are: torch, glorot, glorot_sigmoid\."),
        ("ranking", r"Unknown `ranking` 'number'\. Known are: rankprop, pairwise\."),
    ],
)
def test_unknown_words_are_refused(option: str, said: str) -> None:
    options: dict[str, Any] = {option: "number"}
    with pytest.raises(InputError, match=said):
        Mechanisms(**options)


def test_numbers_out_of_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`peaks_rows` must be at least 1"):
        Mechanisms(peaks_rows=0)
    with pytest.raises(ValueError, match="`promoted_updates` must be at least 1"):
        Mechanisms(promoted_updates=0)
    with pytest.raises(ValueError, match="`promoted_rate` must be positive"):
        Mechanisms(promoted_rate=0.0)
    with pytest.raises(ValueError, match="`laboratory` must be at least 0"):
        Mechanisms(laboratory=-0.1)


def test_the_quick_form(quick: Callable[[str], Result]) -> None:
    found = quick("mechanisms")
    assert np.isfinite(found.rows["value"]).all()
    assert set(found.rows["experiment"]) == {part.name for part in Mechanisms().experiments()}
    published = [line.published for line in found.findings if line.published is not None]
    assert published[:3] == [0.0648, 0.0647, 0.0631]
    assert {-0.03, 0.03, 0.11, 0.19, 0.12, 0.22, 0.48} <= set(published)
    assert all(line.values and len(line.values) == 2 for line in found.findings)
    rmse = found.rows[(found.rows["experiment"] == "inputs as outputs") & (found.rows["measure"] == "RMSE")]
    assert sorted(set(rmse["arm"])) == sorted(promoted.ARMS)
