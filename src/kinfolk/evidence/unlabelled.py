"""Rows without labels: how many are used, by which arms, for how long, and beside which controls.

Rows are drawn from labelled and unlabelled ones together, as published; a batch then holds few labelled rows, and an
epoch more updates. That alone changes what is learned. So every such arm has its padded baseline: the same networks on
the same batches, with a weight of 0 for the task that needs no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kinfolk.evidence.length import Length

SEMI, PADDED = "semi-supervised", "padded baseline"
"""Roles of arms that read rows without labels, and of their controls."""
WITHOUT = "without unlabelled rows"
"""The procedure that chooses among all networks that never read such rows."""

ENOUGH = 0.5  # of the number of labelled rows: with fewer rows without labels no arm is added by itself
LEAST = 50
PER_LABELLED, MOST, SMALL = 10, 20_000, 2_000  # ten per labelled row, at most 20,000 in all; 2,000 in any case


def used(labelled: int, there: int) -> int:
    """How many rows without labels are used: published gains level off, and each row costs time.

    >>> used(100, 500), used(100, 50_000), used(1_000, 50_000), used(30_000, 1_000_000)
    (500, 2000, 10000, 20000)
    """
    return min(there, max(SMALL, min(PER_LABELLED * labelled, MOST)))


def enough(labelled: int, there: int) -> bool:
    """Whether arms that read them are added to the default ones."""
    return there >= max(LEAST, ENOUGH * labelled)


def batch(rows: int) -> int:
    """Rows per update for a table of so many rows."""
    if rows < 2_000:
        return 32
    return 64 if rows < 10_000 else 256


def length_with(length: Length, rows: int) -> Length:
    """How long networks train on so many labelled and unlabelled rows together: as many epochs, in larger batches."""
    return replace(length, batch=max(length.batch, batch(rows))) if length.grows else length


def sigma(length: Length, rows: int) -> float:
    """Epochs in which the weight of reconstruction falls to 1/e: half the patience, which so outlasts the start.

    >>> sigma(Length(), 600)
    10.0
    """
    schedule = length_with(length, rows).schedule(rows)
    return max(1.0, round(schedule.patience / schedule.every / 2, 1))


def arms(length: Length, rows: int) -> tuple[str, ...]:
    """The default arms: evolving weights in one step and in alternating ones, and the padded baseline of each.

    Parameters
    ----------
    length
        Of the networks that read labelled rows alone.
    rows
        Labelled and unlabelled ones that train a network.
    """
    evolving = f"schedule=exponential, sigma={sigma(length, rows)}"
    turns = (evolving, f"{evolving}, alternate=True")
    turns += ("schedule=constant, share=0.0", "schedule=constant, share=0.0, alternate=True")
    return tuple(f"hard + reconstruction + evolving({arguments})" for arguments in turns)


def role(balancing: str, arguments: Sequence[tuple[str, Any]]) -> str:
    """What an arm that reads rows without labels is compared as, by its balancing.

    >>> role("evolving", (("schedule", "constant"), ("share", 0)))
    'padded baseline'
    """
    given = dict(arguments)
    nothing = given.get("schedule") == "constant" and given.get("share") == 0 and not given.get("groups")
    return PADDED if balancing == "evolving" and nothing else SEMI
