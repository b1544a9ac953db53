"""The look of every figure: style, the mark of each arm, safe labels, and SVG that can stand inside a page.

Figures are drawn without pyplot's global state, on a transparent ground, in mid-tones that are legible on white and on
black. :func:`svg` gives lines and letters the colour of the text around them, keeps names as text, and turns the same
figure into the same characters always.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure

INK = "#010203"  # a colour that nobody draws with: svg() makes it the colour of the surrounding text
FONT = "DejaVu Sans"  # comes with matplotlib, so that layout is the same everywhere; svg() then names the reader's font
BLUE, GREEN, RED, GREY = "#3a80c9", "#2a9d74", "#d9622b", "#7f8894"
VERDICT_COLOURS = {"helped": GREEN, "hurt": RED}
COLOURS = {
    "sharing": (BLUE, "#9467c8", "#2796a8", "#c9588f", "#5f8f2f", "#5a6fd0"),
    "single-task": (GREY, "#7a8b5c"),
    "semi-supervised": ("#c2517a", "#8f4fa8"),
    "padded baseline": ("#a98c9b", "#9a8fb0"),
    "opponent": ("#b98a1d", "#a8674a", "#8b8136", "#b5729a"),
}
SHAPES = {  # by role: matplotlib's marker, the same as a character, line style
    "single-task": (("d", "♦", "--"), ("X", "✖", ":")),
    "sharing": (("o", "●", "-"),),
    "semi-supervised": (("p", "⬟", "-"),),
    "padded baseline": (("h", "⬢", "--"),),
    "opponent": (("s", "■", "-"), ("^", "▲", "-"), ("v", "▼", "-")),
}
# So that the arms of one task hide each other less.
LANES = {"sharing": -0.16, "semi-supervised": -0.08, "single-task": 0.0, "padded baseline": 0.08, "opponent": 0.16}
STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize", "font.size"), 8),
    "font.family": FONT,
    "svg.fonttype": "none",
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Mark:
    """How one arm is drawn, in every figure: colour, marker, the same as a character, line style, lane in its row."""

    colour: str
    marker: str
    sign: str
    line: str = "-"
    lane: float = 0.0


HAND_OVER = Mark(INK, "o", "○")


def marks(roles: Mapping[str, str]) -> dict[str, Mark]:
    """Give every arm its mark, by role (``single-task``, ``sharing``, ``opponent`` ...) and by order within the role.

    >>> [mark.sign for mark in marks({"hard": "sharing", "ridge": "opponent", "trees": "opponent"}).values()]
    ['●', '■', '▲']
    """
    seen = dict.fromkeys(SHAPES, 0)
    result = {}
    for arm, role in roles.items():
        shape, colour = SHAPES[role][seen[role] % len(SHAPES[role])], COLOURS[role][seen[role] % len(COLOURS[role])]
        result[arm] = Mark(colour, *shape, lane=LANES[role])
        seen[role] += 1
    return result


def label(text: object, width: int = 18) -> str:
    r"""Make a user's name safe to draw: one line, no control characters, no mathtext, at most `width` characters.

    >>> label("cost ($)")
    'cost (\\$)'
    >>> label("a name that goes on and on", 10)
    'a name th…'
    """
    shown = _printable(text)
    shown = shown if len(shown) <= width else shown[: width - 1] + "…"
    return shown.replace("$", r"\$")


def _printable(text: object) -> str:
    """On one line, with a sign for what neither XML nor a screen can hold."""
    words = " ".join(str(text).encode("utf-8", "replace").decode().split())
    return "".join(c if c.isprintable() else "�" for c in words)


def tinted(shares: np.ndarray) -> np.ndarray:
    """Colours ``[..., 4]`` of cells from shares in [-1, 1]: more or less of a mid-tone, blue above zero, red below.

    On white more of it is darker, on black it is lighter.
    """
    blue, red = (np.array([int(tone[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for tone in (BLUE, RED))
    return np.concatenate([np.where(shares[..., None] < 0, red, blue), 0.7 * np.abs(shares)[..., None]], -1)


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, whatever the user's own matplotlib settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def svg(figure: matplotlib.figure.Figure, description: str = "") -> str:
    """Write a figure as SVG text that can stand inside an HTML page, without any reference to elsewhere.

    Parameters
    ----------
    description
        What the figure says, for readers who do not see it (``aria-label``). Figures of one page need different
        descriptions, so that the names inside them differ too.
    """
    import matplotlib

    text, description = io.StringIO(), _printable(description)
    with style(), warnings.catch_warnings():
        # a name in another script: matplotlib's font lacks its letters, but the reader's browser has them
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        matplotlib.rcParams["svg.hashsalt"] = description
        figure.savefig(text, format="svg", dpi=180, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    _clean(root)
    root.attrib |= {"role": "img", "aria-label": description, "style": "stroke-linejoin: round"}
    return ElementTree.tostring(root, encoding="unicode")


def _clean(root: ElementTree.Element) -> None:
    """Drop what is only for stand-alone files (its style sheet would change the page), and take the page's colour."""
    for element in list(root.iter()):
        element.tag = element.tag.removeprefix(SVG)
        if element.tag == "g":
            element.attrib.pop("id", None)
        if LINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(LINK)
        for key, value in element.attrib.items():
            element.attrib[key] = value.replace(INK, "currentColor").replace(f"'{FONT}'", "system-ui, sans-serif")
        for child in [c for c in element if c.tag in (f"{SVG}metadata", f"{SVG}style")]:
            element.remove(child)
