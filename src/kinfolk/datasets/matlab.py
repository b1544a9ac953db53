"""Files of MATLAB up to version 7: named arrays."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinfolk.exceptions import InputError


def read(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The arrays of these names in a file ``*.mat``.

    Raises
    ------
    InputError
        When it is no such file, is damaged, or has no array of a name.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path, variable_names=list(names))
        return [np.asarray(found[name]) for name in names]
    except KeyError as error:
        raise InputError(f"{path} must hold {', '.join(names)}. It has no {error.args[0]}.") from error
    except (OSError, ValueError, TypeError, NotImplementedError, zlib.error, MatReadError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read: {why}. It may be damaged; remove it to have it anew.") from error
