"""Deep multi-task learning with evidence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinfolk.estimators import MultiTaskClassifier as MultiTaskClassifier
    from kinfolk.estimators import MultiTaskEstimator as MultiTaskEstimator
    from kinfolk.estimators import MultiTaskKFold as MultiTaskKFold
    from kinfolk.estimators import MultiTaskRegressor as MultiTaskRegressor
    from kinfolk.fitted import Fitted as Fitted
    from kinfolk.fitted import Options as Options
    from kinfolk.fitted import fit as fit
    from kinfolk.model import load as load

__version__ = "0.1.0"

_HOMES = {
    "fit": "kinfolk.fitted",
    "Fitted": "kinfolk.fitted",
    "Options": "kinfolk.fitted",
    "load": "kinfolk.model",
    "MultiTaskClassifier": "kinfolk.estimators",
    "MultiTaskEstimator": "kinfolk.estimators",
    "MultiTaskKFold": "kinfolk.estimators",
    "MultiTaskRegressor": "kinfolk.estimators",
}
__all__ = [
    "Fitted",
    "MultiTaskClassifier",
    "MultiTaskEstimator",
    "MultiTaskKFold",
    "MultiTaskRegressor",
    "Options",
    "fit",
    "load",
]


def __getattr__(name: str) -> Any:
    """Imports the heavy parts when they are used: ``import kinfolk`` itself imports no torch."""
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'kinfolk' has no attribute {name!r}")
