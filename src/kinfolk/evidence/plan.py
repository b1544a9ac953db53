"""How a comparison is carried out: splits, folds, settings and length of training, from the size of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kinfolk.evidence.features import MOST_PIECEWISE
from kinfolk.evidence.length import Length

DEFAULT_ARMS = ("independent", "independent + uncertainty", "hard", "hard + uncertainty")
OPPONENTS = ("ridge", "hist_gradient_boosting", "extra_trees")
LADDER = (  # repeats, folds, inner folds, of which held out, settings: from rich to lean
    (3, 5, 5, 5, 6),
    (2, 5, 5, 5, 6),
    (2, 5, 5, 5, 4),
    (1, 5, 5, 5, 4),
    (1, 5, 5, 3, 3),
    (1, 5, 5, 3, 2),
    (1, 3, 5, 2, 2),
    (1, 3, 5, 1, 2),
)
MOST_SECONDS = 750.0
STEP_SECONDS, PRODUCT_SECONDS = 1.1e-5, 1e-10  # of an update of one replica; of a parameter and row in it
STOPPED_EARLY = 0.3  # share of all updates that replicas made, on the tables that were measured


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


def plan_for(rows: int, columns: int = 0, tasks: int = 1, arms: Sequence[str] = DEFAULT_ARMS + OPPONENTS) -> Plan:
    """The plan for a table of so many rows, encoded columns and main tasks.

    Small tables are noisy, so they get many splits and settings; large ones need few, and each costs more. Where
    columns and tasks are many, repeats, settings and inner folds are fewer, so that it ends in reasonable time.
    """
    arms = tuple(arms)
    if rows < 1_000:
        richest, length, width = 0, Length(), 128
    elif rows < 2_000:
        richest, length, width = 1, Length(), 128
    elif rows < 10_000:
        richest, length, width = 5, Length(75, 1500, 64), 128
    else:
        richest, length, width = len(LADDER) - 1, Length(15, 1500, 256, patience=0.3), 256
    plans = [Plan(arms, *rung, length, width) for rung in LADDER[richest:]]
    return next((plan for plan in plans if _seconds(plan, rows, columns, tasks) <= MOST_SECONDS), plans[-1])


def _seconds(plan: Plan, rows: int, columns: int, tasks: int) -> float:
    """Roughly how long the networks of the default arms train, on one thread."""
    inputs = columns + min(8 * columns, MOST_PIECEWISE)
    parameters = plan.width * (inputs + plan.width)
    schedule = plan.length.schedule(max(1, round(0.6 * rows)))
    copies = plan.settings * plan.held * 2 * (1 + tasks)
    a_step = STEP_SECONDS + PRODUCT_SECONDS * parameters * schedule.batch
    return (plan.repeats * plan.folds + 1) * copies * schedule.updates * STOPPED_EARLY * a_step
