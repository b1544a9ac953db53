"""What every test starts from: fixed seeds, one thread, and the folder of real data where there is one.

Shapes and types in annotations are checked while tests run, by jaxtyping's import hook with beartype: see ``addopts``
in pyproject.toml. Nothing outside of the tests pays for it.
"""

from __future__ import annotations

import os

# One thread per process is how Kinfolk runs, and results are equal bit for bit only for an equal number of threads.
# Set before numpy and torch are imported, and inherited by the processes that tests start.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Started in the background by a shell, this process ignores Ctrl-C, and so would the processes whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow or shared machine is no reason to fail: tests assert no times. Examples are the same on every run.
settings.register_profile("kinfolk", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kinfolk")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Seeds the global generators, so that a test that draws from one does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that scikit-learn falls back to
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that KINFOLK_DATA names. Tests that need one are skipped without it."""
    named = os.environ.get("KINFOLK_DATA")
    if not named:
        pytest.skip("KINFOLK_DATA names no folder of data sets")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"KINFOLK_DATA must name a folder. There is none at {folder}.")
    return folder
