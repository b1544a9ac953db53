"""How a comparison is carried out: splits, folds, settings and length of training, from the size of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kinfolk.evidence.length import Length

DEFAULT_ARMS = ("independent", "independent + uncertainty", "hard", "hard + uncertainty")
OPPONENTS = ("ridge", "hist_gradient_boosting", "extra_trees")


@dataclass(frozen=True)
class Plan:
    """What is going to be done.

    Attributes
    ----------
    arms
        Texts of the network arms and opponents.
    repeats, folds
        Outer splits: repeats of k-fold.
    inner, held
        Inner folds, and how many of them are held out in turn (1: a hold-out).
    settings
        How many settings each arm may choose from.
    length
        How long networks train.
    width
        Of a trunk, where the arm does not say.
    seed
        Of everything.
    device
        Of networks.
    one_network
        Hand over a single network instead of a blend.
    """

    arms: tuple[str, ...]
    repeats: int
    folds: int
    inner: int
    held: int
    settings: int
    length: Length
    width: int
    seed: int = 0
    device: str = "cpu"
    one_network: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def changed(self, **given: Any) -> Plan:
        """With the values that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def plan_for(rows: int, arms: Sequence[str] = DEFAULT_ARMS + OPPONENTS) -> Plan:
    """The plan for a table of so many labelled rows.

    Small tables are noisy, so they get many splits and settings; large ones need few, and each costs more.
    """
    arms = tuple(arms)
    if rows < 1_000:
        return Plan(arms, 3, 5, 5, 5, 6, Length(), 128)
    if rows < 2_000:
        return Plan(arms, 2, 5, 5, 5, 6, Length(halve_at=0.25), 128)
    if rows < 10_000:
        return Plan(arms, 1, 5, 5, 3, 4, Length(60, 1500, 64, halve_at=0.2), 128)
    return Plan(arms, 1, 3, 5, 1, 2, Length(15, 1500, 256, patience=0.3), 256)
