"""How a comparison is carried out: splits, folds, settings and length of training, from the size of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kinfolk.evidence.features import MOST_PIECEWISE
from kinfolk.evidence.length import Length
from kinfolk.evidence.unlabelled import arms as arms_with
from kinfolk.evidence.unlabelled import enough, length_with, used

if TYPE_CHECKING:
    from kinfolk.training.schedule import Schedule

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
TRAINED = 0.6  # of the labelled rows: an outer fold, an inner fold and the rows that stop are held out
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
    unlabelled
        How many rows without any label are used, by arms with a task that needs none.
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
    unlabelled: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def changed(self, **given: Any) -> Plan:
        """With the values that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def plan_for(
    rows: int, columns: int = 0, tasks: int = 1, unlabelled: int = 0, arms: Sequence[str] = DEFAULT_ARMS + OPPONENTS
) -> Plan:
    """The plan for a table of so many labelled rows, encoded columns, main tasks and rows without any label.

    Small tables are noisy, so they get many splits and settings; large ones need few, and each costs more. Where
    columns, tasks and rows without labels are many, repeats, settings and inner folds are fewer, so that it ends in
    reasonable time. Where rows without labels are enough, arms that read them are added.
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
    extra = used(rows, unlabelled)
    if enough(rows, extra):
        arms = (*arms, *arms_with(length, round(TRAINED * rows) + extra))
    plans = [Plan(arms, *rung, length, width, unlabelled=extra) for rung in LADDER[richest:]]
    return next((plan for plan in plans if _seconds(plan, rows, columns, tasks) <= MOST_SECONDS), plans[-1])


def _seconds(plan: Plan, rows: int, columns: int, tasks: int) -> float:
    """Roughly how long the networks of the default arms train, on one thread."""
    inputs = columns + min(8 * columns, MOST_PIECEWISE)
    parameters = plan.width * (inputs + plan.width)
    trained = max(1, round(TRAINED * rows))
    # A network per task and one for all, by two balancings each; and networks that read rows without labels, twice
    # where they alternate, and for less on labelled rows alone.
    a_network = 2 * (1 + tasks) * _training_seconds(plan.length.schedule(trained), parameters)
    if enough(rows, plan.unlabelled):
        whole = trained + plan.unlabelled
        a_network += 4 * _training_seconds(length_with(plan.length, whole).schedule(whole), 2 * parameters)
    return (plan.repeats * plan.folds + 1) * plan.settings * plan.held * a_network


def _training_seconds(schedule: Schedule, parameters: int) -> float:
    a_step = STEP_SECONDS + PRODUCT_SECONDS * parameters * schedule.batch
    return schedule.updates * STOPPED_EARLY * a_step
