"""What a network needs of encoded columns: scaling, gaps filled, and piecewise-linear features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from rtdl_num_embeddings import PiecewiseLinearEncoding
    from torch import Tensor

ENCODINGS = ("standard", "piecewise", "plain")
MOST_PIECEWISE = 1000  # columns: beyond that fewer bins per column are made


class Preparation:
    """Encoded columns as network inputs.

    Columns of two values are mapped to 0 and 1, others are standardised; a gap becomes 0 (the mean) and sets an
    indicator column. ``"piecewise"`` adds, for each standardised column, how far the value has come through each
    of up to 8 quantile bins: an embedding without activation before a linear layer is the same function. ``"plain"``
    has no indicators: as many inputs as columns, in their order, for trunks that read them as an image.

    Parameters
    ----------
    encoding
        "standard", "piecewise" or "plain".
    bins
        The most bins per column.

    References
    ----------
    Y. Gorishniy, I. Rubachev, A. Babenko (2022). On embeddings for numerical features in tabular deep learning.
    NeurIPS. Section 3.2, equation 1.
    """

    def __init__(self, encoding: str = "standard", bins: int = 8) -> None:
        if encoding not in ENCODINGS:
            raise ValueError(f"`encoding` must be one of {', '.join(ENCODINGS)}. Got {encoding!r}.")
        self.encoding, self.bins = encoding, bins

    def fit(self, inputs: Float[np.ndarray, "row feature"]) -> Preparation:
        """Learns means, scales and bins from the given rows."""
        values = np.asarray(inputs, dtype=np.float64)
        gaps = np.isnan(values)
        known = np.where(gaps, np.nan, values)
        some = ~gaps.all(0)
        filled = np.where(some, known, 0.0)
        low, high = np.nanmin(filled, 0), np.nanmax(filled, 0)
        two = (np.isnan(filled) | (filled == low) | (filled == high)).all(0)
        self.shift = np.where(two, low, np.nanmean(filled, 0))
        scale = np.where(two, high - low, np.nanstd(filled, 0))
        self.scale = np.where(scale > 0, scale, 1.0)
        self.indicators = np.flatnonzero(gaps.any(0) & some & (self.encoding != "plain"))
        self.binned = np.flatnonzero(~two)
        self.edges = self._bins(values) if self.encoding == "piecewise" else np.zeros((0, 0))
        return self

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """Bin edges ``[binned column, edge]`` in standardised units, filled up with NaN."""
        import torch
        from rtdl_num_embeddings import compute_bins

        if not len(self.binned) or len(values) < 4:
            return np.zeros((0, 0))
        count = int(np.clip(MOST_PIECEWISE // len(self.binned), 2, self.bins))
        standard = self._standard(values)[:, self.binned]
        with warnings.catch_warnings():  # of columns with one bin: they are left out
            warnings.filterwarnings("ignore", "The .*-th feature has just two bin edges")
            found = compute_bins(torch.from_numpy(standard), n_bins=min(count, len(values) - 2))
        binned = [i for i, edges in enumerate(found) if len(edges) > 2]
        self.binned, found = self.binned[binned], [found[i] for i in binned]
        if not found:
            return np.zeros((0, 0))
        edges = np.full((len(found), max(len(e) for e in found)), np.nan)
        for row, one in zip(edges, found, strict=True):
            row[: len(one)] = one.numpy()
        return edges

    def _standard(self, values: np.ndarray) -> np.ndarray:
        return np.nan_to_num((values - self.shift) / self.scale, nan=0.0)

    def transform(self, inputs: Float[np.ndarray, "row feature"]) -> Tensor:
        """Network inputs ``[row, feature]`` in torch's default float type."""
        import torch

        values = np.asarray(inputs, dtype=np.float64)
        standard = self._standard(values)
        parts = [standard, np.isnan(values[:, self.indicators])]
        if len(self.edges):
            parts.append(self._piecewise(standard[:, self.binned]))
        return torch.from_numpy(np.concatenate(parts, 1)).to(torch.get_default_dtype())

    def _piecewise(self, standard: np.ndarray) -> np.ndarray:
        import torch

        low, high = self.ends()
        return self.piecewise()(torch.from_numpy(np.clip(standard, low, high))).numpy()

    def piecewise(self) -> PiecewiseLinearEncoding:
        """The encoding of the binned columns, in float64. There must be edges."""
        import torch
        from rtdl_num_embeddings import PiecewiseLinearEncoding

        return PiecewiseLinearEncoding([torch.from_numpy(edges[~np.isnan(edges)]) for edges in self.edges]).double()

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last edge of each binned column, to which values are clipped.

        Outside the bins the encoding would go on along a line that can be very steep; the standardised value says what
        lies there.
        """
        return np.nanmin(self.edges, 1), np.nanmax(self.edges, 1)

    def state(self) -> dict[str, np.ndarray]:
        """All that was learned, by name."""
        arrays = {name: getattr(self, name) for name in ("shift", "scale", "indicators", "binned", "edges")}
        return arrays | {"piecewise": np.array(int(self.encoding == "piecewise"))}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Preparation:
        """The inverse of :meth:`state`. Once fitted, "plain" is "standard" without indicators."""
        made = cls("piecewise" if int(state["piecewise"]) else "standard")
        for name in ("shift", "scale", "indicators", "binned", "edges"):
            setattr(made, name, np.asarray(state[name]))
        return made
