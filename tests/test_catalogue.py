"""Text and back, a small catalogue made for the test, and what holds for every real one."""

from __future__ import annotations

import contextlib
import copy
import math
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk import catalogue
from kinfolk.balancing.jacobian import RULES
from kinfolk.catalogue import CATALOGUES, Catalogue, Term, find, parse, text_of
from kinfolk.exceptions import InputError
from kinfolk.terms import is_name

NAMES = st.text(string.ascii_letters + string.digits + "_", min_size=1).filter(is_name)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | NAMES
    | st.sampled_from(
        ["inf", "nan", "None", "True", "-", "a b", "1", "lambda", "'", '"', "\\", "\n", "é", "ﬁ", "\udc80"]
    )
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
# Not terms themselves: the check of annotations in tests draws random numbers, which Hypothesis forbids while it draws.
TERMS = st.tuples(
    NAMES,
    st.lists(st.tuples(NAMES, VALUES), max_size=4, unique_by=lambda pair: pair[0]).map(tuple),
)


# ---- text


@given(st.lists(TERMS, min_size=1, max_size=3).map(tuple))
def test_text_and_back(drawn: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]) -> None:
    terms = tuple(Term(name, arguments) for name, arguments in drawn)
    text = " + ".join(map(str, terms))
    again = parse(text)
    assert again == terms
    assert " + ".join(map(str, again)) == text
    assert [repr(term) for term in again] == [repr(term) for term in terms]  # 1, 1.0 and True are equal
    assert [hash(term) for term in again] == [hash(term) for term in terms]


@given(st.text() | st.text("mlp(+)=,'[]{}:1.-*#\\ \n\t"))
def test_no_text_ends_in_another_error(text: str) -> None:
    with contextlib.suppress(InputError):
        terms = parse(text)
        assert parse(" + ".join(map(str, terms))) == terms


def test_arguments_are_literals_or_bare_words() -> None:
    (term,) = parse("a( x=-1, y=1e-3, z=word, u='two words', v={edges: 2, 'b': [c, (1,)]}, w=-inf, n=None, t=True)")
    assert dict(term.arguments) == {
        "x": -1,
        "y": 0.001,
        "z": "word",
        "u": "two words",
        "v": {"edges": 2, "b": ["c", (1,)]},
        "w": -math.inf,
        "n": None,
        "t": True,
    }


def test_a_term_can_be_sent_and_hashed() -> None:
    term = Term("a", (("x", [1, {"b": 2}]),))
    assert copy.deepcopy(term) == term
    assert {term: 1}[parse(str(term))[0]] == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid syntax"),
        ("mlp +", "invalid syntax"),
        ("+ mlp", "no method"),
        ("mlp(3)", "Arguments of 'mlp' must be named, as in mlp\\(name=3\\)"),
        ("mlp(**x)", "must be named"),
        ("mlp(a=1, a=2)", "twice"),
        ("mlp * hard", "'mlp \\* hard' is no method"),
        ("mlp.hard", "'mlp.hard' is no method"),
        ("'mlp'", "no method"),
        ("mlp(a=2*3)", "'2 \\* 3' is no value"),
        ("mlp(a=b-c)", "'b - c' is no value. A text .* in quotes"),
        ("mlp(a=open(b))", "'open\\(b\\)' is no value"),
        ("mlp(a=b.c)", "no value"),
        ("mlp(a=-b)", "no value"),
        ("mlp(a=f'{b}')", "no value"),
        ("mlp(a={[1]: 2})", "no value"),
        ("mlp(a={**b})", "no value"),
        ("mlp(a=1j)", "Got 1j"),
        ("mlp(a=b'x')", "Got b'x'"),
        ("mlp(a={1, 2})", "Got {1, 2}"),
        ("mlp(a=...)", "Got Ellipsis"),
        ("mlp(lambda=1)", "invalid syntax"),
        ("é", "Python name"),
        ("\0", "null"),
        ("(" * 1000, "too many nested|nested too deeply|memory"),
        ("a(b=" + "-" * 100_000 + "1)", "nested too deeply|memory"),
        ("1" * 5000, "digits"),
    ],
)
def test_other_texts_are_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        parse(text)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("value", [object(), {1}, b"x", 1j, [np.ones(2)]])
def test_values_without_text_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Term("a", (("x", value),))


def test_numbers_of_numpy_that_are_python_numbers() -> None:
    assert str(Term("a", (("x", np.float64(0.5)), ("y", np.str_("b"))))) == "a(x=0.5, y=b)"


# ---- a catalogue

BASE = "class Base:\n    pass\n"
MMOE = '''
from __future__ import annotations
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal
from cookery.base import Base

class MMoE(Base):
    """Mixes experts,
    by a gate for each task.

    More about it.

    Parameters
    ----------
    experts : int
        How many, at least 1.

        4 in the paper.
    gate, norm
        Of the gates.

    Raises
    ------
    ValueError
        Without experts.

    References
    ----------
    .. [1] J. Ma et al. (2018). Modeling task
       relationships. KDD.
    .. [2] Someone else.
    """

    def __init__(self, experts: int = 4, gate: Literal["soft", "hard"] = "soft", norm: str | None = None,
                 sizes: Sequence[int] = (), rate: float = 0.1, scale: dict[str, float] | None = None) -> None:
        if experts < 1:
            raise ValueError(f"`experts` must be at least 1. Got {experts}.")
        self.experts, self.gate, self.norm, self.sizes, self.rate, self.scale = experts, gate, norm, sizes, rate, scale
'''
PLAINLY = '''
class Plain:
    """Nothing."""
'''
NEEDY = '''
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Thing

def needy(thing: Thing, *more: int, **others: int) -> tuple:
    """Takes a thing.

    References
    ----------
    A. Author (2000). A title
    over two lines.

    B. Author (2001). Another.
    """
    if thing == "bad":
        raise TypeError("`thing` must be good. Got bad.")
    return thing, others
'''
INIT = """
from cookery.base import Base as Base
from cookery.mmoe import MMoE as MMoE
from cookery.plain import Plain as Plain
from cookery.needy import needy as needy
"""


@pytest.fixture
def cookery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    folder = tmp_path / "cookery"
    folder.mkdir()
    files = {"__init__": INIT, "base": BASE, "mmoe": MMOE, "plain": PLAINLY, "needy": NEEDY}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ["cookery", *(f"cookery.{name}" for name in files)]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return Catalogue("cookery", "cookery")


def make(cookery: Catalogue, text: str) -> Any:
    (term,) = parse(text)
    return cookery.make(term)


def test_a_file_is_a_method(cookery: Catalogue) -> None:
    assert cookery.names() == ["mmoe", "needy", "plain"]
    assert cookery.get("mmoe").__name__ == "MMoE"
    with pytest.raises(InputError, match=r"Unknown name in cookery 'mmeo'. Did you mean 'mmoe'"):
        cookery.get("mmeo")


def test_one_object_per_file(cookery: Catalogue, tmp_path: Path) -> None:
    with (tmp_path / "cookery" / "__init__.py").open("a") as file:
        file.write("\nclass Second: pass\nSecond.__module__ = 'cookery.plain'\n")
    with pytest.raises(ValueError, match=r"one object of plain.py"):
        cookery.names()


def test_making(cookery: Catalogue) -> None:
    made = make(cookery, "mmoe(experts=2, gate=hard, sizes=[1, 2], rate=1, scale={a: 1})")
    assert (made.experts, made.gate, made.sizes, made.rate, made.scale) == (2, "hard", [1, 2], 1, {"a": 1})
    assert make(cookery, "needy(thing=1)") == (1, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmoe(expert=2)", "Unknown argument of 'mmoe' 'expert'. Did you mean 'experts'"),
        ("plain(a=1)", "'plain' takes no arguments. Got 'a'"),
        ("needy(thing=1, other=2)", "Unknown argument of 'needy' 'other'"),
        ("needy", "'needy' needs the argument `thing`, as in needy\\(thing=...\\)"),
        ("mmoe(experts=0)", "mmoe\\(experts=0\\): `experts` must be at least 1. Got 0."),
        ("needy(thing=bad)", "needy\\(thing=bad\\): `thing` must be good"),
        ("mmoe(experts=two)", "`experts` of 'mmoe' must be int. Got two"),
        ("mmoe(experts=1.5)", "must be int. Got 1.5"),
        ("mmoe(experts=True)", "must be int. Got True"),
        ("mmoe(experts=None)", "must be int. Got None"),
        ("mmoe(rate=True)", "must be float"),
        ("mmoe(norm=1)", "must be str or None. Got 1"),
        ("mmoe(gate=warm)", "`gate` of 'mmoe' must be .*soft.*hard.*Got warm"),
        ("mmoe(sizes=[1, a])", "Sequence"),
        ("mmoe(sizes=ab)", "Sequence"),
        ("mmoe(scale=1)", "dict"),
    ],
)
def test_wrong_arguments(cookery: Catalogue, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(cookery, text)


def test_description(cookery: Catalogue) -> None:
    mmoe, needy, plain = cookery.describe()
    assert mmoe.summary == "Mixes experts, by a gate for each task."
    assert mmoe.reference == "J. Ma et al. (2018). Modeling task relationships. KDD."
    assert mmoe.signature == "mmoe(experts=4, gate=soft, norm=None, sizes=(), rate=0.1, scale=None)"
    first, gate, norm, *_ = mmoe.parameters
    assert (first.name, first.default, first.annotation) == ("experts", "4", "int")
    assert first.description == "How many, at least 1. 4 in the paper."
    assert gate.description == norm.description == "Of the gates."
    assert needy.reference == "A. Author (2000). A title over two lines."
    assert needy.parameters[0].default is None
    assert needy.signature == "needy(thing)"
    assert (plain.signature, plain.reference, plain.parameters) == ("plain", "", ())


@pytest.mark.parametrize(
    "text", ["mmoe", "mmoe(experts=2)", "mmoe(gate=hard, norm=layer, sizes=[3])", "plain", "mmoe(scale={a: 2})"]
)
def test_text_of_an_object(cookery: Catalogue, text: str) -> None:
    assert text_of(make(cookery, text)) == text


def test_text_of_numbers_in_arrays(cookery: Catalogue) -> None:
    made = make(cookery, "mmoe")
    made.rate = np.array([0.1], dtype=np.float32)
    assert text_of(made) == "mmoe"
    made.rate = np.array([0.2, 0.2], dtype=np.float32)
    assert text_of(made) == "mmoe(rate=0.2)"
    made.rate = np.array([0.2, 0.3])
    assert text_of(made) == "mmoe(rate=[0.2, 0.3])"
    made.rate = np.array(3)
    assert text_of(made) == "mmoe(rate=3)"
    made.rate = object()
    with pytest.raises(ValueError, match="must be a number"):
        text_of(made)
    del made.rate
    with pytest.raises(ValueError, match="MMoE must keep its parameter `rate`"):
        text_of(made)


# ---- the real ones


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, kinfolk.catalogue; print(*{'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_names_are_unique_over_all_catalogues() -> None:
    names = [name for one in CATALOGUES.values() for name in one.names()]
    assert len(names) == len(set(names))
    for title, one in CATALOGUES.items():
        for name in one.names():
            assert find(name) == (title, one.get(name))


def test_an_unknown_name_lists_near_ones() -> None:
    with pytest.raises(InputError, match=r"Unknown method 'independant'. Did you mean 'independent'"):
        find("independant")


@pytest.mark.parametrize("title", sorted(CATALOGUES))
def test_every_file_is_exported(title: str) -> None:
    folder = Path(catalogue.__file__).parent / title
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", *catalogue.BASES}
    made = set(RULES) if title == "balancing" else set()  # the rules of TorchJD have no files of ours
    assert set(CATALOGUES[title].names()) == files | made
    assert not files & made


@pytest.mark.parametrize("title", sorted(CATALOGUES))
def test_every_method_is_documented(title: str) -> None:
    for method in CATALOGUES[title].describe():
        assert method.summary.endswith("."), method.name
        for parameter in method.parameters:
            assert parameter.description, f"{method.name}: {parameter.name}"
            assert parameter.annotation, f"{method.name}: {parameter.name}"


@pytest.mark.parametrize("title", sorted(set(CATALOGUES) - {"datasets"}))
def test_every_default_can_be_written(title: str) -> None:
    one = CATALOGUES[title]
    for method in one.describe():
        if all(parameter.default is not None for parameter in method.parameters):
            assert text_of(one.make(Term(method.name))) == method.name
            assert str(one.make(parse(method.signature)[0])) is not None
