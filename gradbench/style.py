"""How estimators look, in every figure: one colour, marker and line per family."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib import colors

from gradbench.spec import family, label

# Matplotlib's settings for all figures; fonts are embedded as TrueType (42).
SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.ymargin": 0.12,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,
}


class Style(NamedTuple):
    """Colour, marker and line style, as matplotlib takes them."""

    color: str
    marker: str
    line: Any = "-"


# The colours of Okabe and Ito, told apart with all common kinds of colour vision.
FAMILIES = {
    "reinforce": Style("#0072B2", "s"),
    "arm": Style("#56B4E9", "D"),
    "concrete": Style("#E69F00", "^"),
    "mean_field": Style("#CC79A7", "X", (0, (4, 1.2))),
    "straight_through": Style("#009E73", "o"),
    "psa": Style("#D55E00", "P"),
    "exact": Style("#000000", "", (0, (5, 2))),
}
# Lines that are no estimators, such as problems and optimisers, in their order.
LINES = [
    Style(look.color, look.marker or "v", line)
    for look, line in zip(
        (FAMILIES[name] for name in ("reinforce", "concrete", "straight_through", "psa")),
        ("-", (0, (4, 1.2)), "-.", (0, (1, 1))),
        strict=True,
    )
]
LINES += [Style("#000000", "v", (0, (5, 2))), Style("#CC79A7", "X", "-"), Style("#56B4E9", "D")]
_OTHER = Style("#777777", "*")
_VARIANTS: list[tuple[str, Any]] = [("v", (0, (3, 1))), ("^", "-"), ("<", (0, (1, 1))), (">", "-.")]


def styles(estimators: Iterable[str]) -> dict[str, Style]:
    """A style per estimator, in legend order; variants differ in shade, marker and line."""
    order = list(FAMILIES)

    def rank(name: str) -> tuple[int, bool, list[float], str]:
        numbers = [float(text) for text in re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?", name)]
        place = order.index(family(name)) if family(name) in FAMILIES else len(order)
        return place, label(name) != name, numbers, name

    names = sorted(set(estimators), key=rank)
    chosen = {}
    for name in names:
        variants = [other for other in names if family(other) == family(name)]
        style = FAMILIES.get(family(name), _OTHER)
        if len(variants) > 1:
            k = variants.index(name)
            marker, line = _VARIANTS[k % len(_VARIANTS)]
            style = Style(_darker(style.color, 0.45 * (1 - k / (len(variants) - 1))), marker, line)
        chosen[name] = style
    return chosen


def _darker(color: str, share: float) -> str:
    red, green, blue = ((1.0 - share) * part for part in colors.to_rgb(color))
    return colors.to_hex((red, green, blue))
