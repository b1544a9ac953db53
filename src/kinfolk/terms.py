"""The text of an arm: terms such as ``mmoe(experts=4)``, joined by ``+``."""

from __future__ import annotations

import ast
import keyword
import math
import re
import warnings
from dataclasses import dataclass
from typing import Any

from kinfolk.exceptions import InputError

_EXAMPLE = "Write names joined by '+', as in 'mlp(width=128) + hard + uncertainty'."
_CONSTANTS = {"inf": math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Term:
    """A method's name and arguments, as written in the text of an arm.

    Parameters
    ----------
    name
        Of the method.
    arguments
        Pairs of name and value. Values are numbers, texts, True, False, None, and lists, tuples and
        dictionaries of these.

    Raises
    ------
    ValueError
        When something cannot be written as text.

    Examples
    --------
    >>> str(Term("mlp", (("width", 64), ("norm", "layer"))))
    'mlp(width=64, norm=layer)'
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        names = [self.name, *(name for name, _ in self.arguments)]
        if wrong := [name for name in names if not is_name(name)]:
            raise ValueError(f"The name of a method or argument must be a Python name. Got {wrong[0]!r}.")
        if len(set(names[1:])) < len(names) - 1:
            raise ValueError(f"An argument of '{self.name}' is given twice: {', '.join(names[1:])}.")
        str(self)  # raises for values that have no text

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}({', '.join(f'{name}={write(value)}' for name, value in self.arguments)})"

    def __hash__(self) -> int:
        # Values may be lists. 1, 1.0 and True are equal and would have to have the same hash, so they are left out.
        return hash((self.name, tuple(name for name, _ in self.arguments)))


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a text such as ``mlp(width=128) + hard``.

    Arguments are Python literals; a bare word is a text, and ``inf`` is infinity. No code is run.

    Raises
    ------
    InputError
        For a text that has another form.

    Examples
    --------
    >>> [str(term) for term in parse("mlp( width = 128,norm='layer' )+hard")]
    ['mlp(width=128, norm=layer)', 'hard']
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's compiler, e.g. about odd escapes in quotes
            node: ast.expr = ast.parse(text.strip(), mode="eval").body
        terms: list[Term] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            terms.append(_read_term(node.right))
            node = node.left
        terms.append(_read_term(node))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        why = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InputError(f"{shown!r} cannot be read as an arm: {why.rstrip('.')}. {_EXAMPLE}") from None
    return tuple(reversed(terms))


def read(text: str) -> Any:
    """A value as it is written in the text of an arm: a Python literal, or a bare word.

    >>> read("0.5"), read("[10, word]"), read("None")
    (0.5, [10, 'word'], None)

    Raises
    ------
    InputError
        For a text that is no value.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read_value(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InputError(
            f"{shown!r} is no value. A text of more than letters, digits and _ must stand in quotes."
        ) from None


def _read_term(node: ast.expr) -> Term:
    if isinstance(node, ast.Name):
        return Term(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"'{ast.unparse(node)}' is no method.")
    name = node.func.id
    if node.args:
        given = ast.unparse(node.args[0])
        raise ValueError(
            f"Arguments of '{name}' must be named, as in {name}(name={given}). Got {given} without a name."
        )
    arguments = []
    for argument in node.keywords:
        if argument.arg is None:
            raise ValueError(f"Arguments of '{name}' must be named. Got **.")
        arguments.append((argument.arg, _read_value(argument.value)))
    return Term(name, tuple(arguments))


def _read_value(node: ast.expr) -> Any:
    given = ast.unparse(node)
    try:
        return ast.literal_eval(_BareWords().visit(node))
    except (ValueError, TypeError):  # TypeError: a list as a key
        raise ValueError(
            f"'{given}' is no value. A text of more than letters, digits and _ must stand in quotes."
        ) from None


class _BareWords(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_CONSTANTS.get(node.id, node.id))


def write(value: Any) -> str:
    """The text that is read as `value`; ValueError where there is none."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, str):
        return str(value) if is_name(value) and value not in _CONSTANTS else repr(str(value))
    if isinstance(value, list):
        return f"[{', '.join(map(write, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(write, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{write(key)}: {write(inner)}' for key, inner in value.items())}}}"
    raise ValueError(f"A value must be a number, text, True, False, None, or a list of these. Got {value!r}.")


def is_name(text: str) -> bool:
    """Whether a method or argument may have this name."""
    # ASCII only: Python's parser would change some other letters into their like.
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and not keyword.iskeyword(text)
