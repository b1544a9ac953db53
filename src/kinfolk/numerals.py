"""Numbers and free values as they are written for readers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Number = float | int  # what JSON holds


def number(value: Number | None, sign: bool = False) -> str:
    """Write a number with 3 significant digits; what is not known as a dash.

    >>> number(0.123456), number(12345), number(-0.5), number(None), number(2e-7)
    ('0.123', '12,300', '−0.500', '–', '2.00e−07')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    text = f"{value:+.2e}"
    exponent = int(text.partition("e")[2])
    if -5 < exponent < 7:
        text = f"{float(text):+,.{max(0, 2 - exponent)}f}"
    return (text if sign else text.removeprefix("+")).replace("-", "−")


def percent(value: Number | None) -> str:
    """Write a number of percent with its sign."""
    return f"{number(value, sign=True)} %".replace("– %", "–")


def interval(value: Sequence[Number | None] | None) -> str:
    """Write an interval as ``[lo, hi]``.

    >>> interval([-0.01, 2.5]), interval(None)
    ('[−0.0100, 2.50]', '–')
    """
    if value is None or any(v is None or not math.isfinite(v) for v in value):
        return "–"
    return f"[{', '.join(number(v) for v in value)}]"


def plain(value: Any) -> str:
    """Write a free value of the plan (numbers, lists, dicts) as words.

    >>> plain({"learning_rate": 0.003, "arms": ["hard", "ridge"], "rows": 32561, "groups": None})
    'learning rate 0.003, arms hard, ridge, rows 32,561, groups none'
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {plain(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) > 9999 else str(value)
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
