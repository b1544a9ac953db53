"""What networks read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kinfolk.evidence.features import ENCODINGS, Preparation


def test_two_valued_columns_become_zero_and_one_and_others_are_standardised():
    values = np.array([[5.0, 1.0], [7.0, 2.0], [5.0, 6.0]])
    found = Preparation().fit(values).transform(values).numpy()
    assert found[:, 0].tolist() == [0, 1, 0]
    assert found[:, 1].mean() == pytest.approx(0, abs=1e-6)
    assert found[:, 1].std() == pytest.approx(1, abs=1e-6)


def test_a_gap_is_the_mean_and_sets_an_indicator():
    values = np.array([[1.0], [2.0], [4.0], [np.nan]])
    found = Preparation().fit(values).transform(values).numpy()
    assert found[3].tolist() == [0, 1]
    assert found[:3, 1].tolist() == [0, 0, 0]


def test_plain_inputs_are_as_many_as_columns():
    values = np.array([[1.0, 0.0], [2.0, 5.0], [4.0, 5.0], [np.nan, 7.0]])
    found = Preparation("plain").fit(values).transform(values)
    assert torch.equal(found, Preparation().fit(values).transform(values)[:, :2])


def test_a_gap_where_none_was_fitted_is_the_mean():
    preparation = Preparation("piecewise").fit(np.arange(20.0)[:, None])
    assert preparation.transform(np.array([[np.nan]]))[0, 0] == 0


def test_piecewise_features_rise_from_zero_to_one_bin_by_bin():
    values = np.linspace(0, 1, 200)[:, None]
    found = Preparation("piecewise", bins=4).fit(values).transform(values).numpy()[:, 1:]
    assert found.shape[1] == 4
    assert found[0] == pytest.approx(np.zeros(4), abs=1e-6)
    assert found[-1] == pytest.approx(np.ones(4))
    assert (np.diff(found, axis=0) > -1e-6).all()
    assert (np.diff(found, axis=1) < 1e-6).all()  # a bin is full before the next one begins


def test_values_beyond_the_bins_do_not_explode():
    values = np.concatenate([np.linspace(0, 1e-6, 50), np.linspace(1, 2, 50)])[:, None]
    found = Preparation("piecewise").fit(values).transform(np.array([[-100.0], [100.0]])).numpy()[:, 1:]
    assert (found >= 0).all()
    assert (found <= 1 + 1e-6).all()


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, (12, 3), elements=st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))))
def test_anything_becomes_finite_and_survives_storage(values: np.ndarray):
    for encoding in ENCODINGS:
        preparation = Preparation(encoding).fit(values)
        found = preparation.transform(values)
        assert torch.isfinite(found).all()
        again = Preparation.from_state(preparation.state()).transform(values)
        assert torch.equal(found, again)


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="standard, piecewise"):
        Preparation("fourier")
