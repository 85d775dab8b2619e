"""The looks of estimators in every figure: one colour and marker for each family.

The family of an estimator comes with the results that are drawn, so that an estimator of a plugin
looks like its family too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
from matplotlib import colors
from matplotlib.path import Path

from gradbench.core import index
from gradbench.core.display import display_names
from gradbench.core.specs import family, label
from gradbench.metrics import names_in

# Matplotlib's settings for all figures; fonts are embedded as TrueType (42), in SVG text is text.
SETTINGS: Any = {
    "figure.dpi": 200,  # as figures are written: the width of text depends on it
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
    "svg.fonttype": "none",
    "svg.hashsalt": "gradbench",  # ids that are the same each time
    "image.composite_image": False,  # each keeps its id
}
# Those of figures that show names: one with dollar signs is no formula.
PLAIN: Any = SETTINGS | {"text.usetex": False, "text.parse_math": False}

# What changes where there are too many lines for these markers, and in a column of two.
CROWDED: Any = {"lines.markersize": 2.4, "lines.linewidth": 0.8}
NARROW: Any = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 7,
    "lines.markersize": 3,
    "lines.linewidth": 0.8,
}


class Style(NamedTuple):
    """Colour, marker and line style, as matplotlib takes them, and the name in legends.

    These are ``color``, ``marker``, ``line`` and ``label``.

    The lines of estimators are solid where they come from exact moments, else ``SAMPLED``: other
    line styles are those of lines that are no estimators.
    """

    color: str
    marker: str
    line: Any = "-"
    label: str = ""


SAMPLED: Any = (0, (2.2, 1.3))  # the line style of what was estimated from draws
# The mark of an upper limit, a bar with an arrow down from it: no estimator has it.
LIMIT = Path(
    [(-1, 0), (1, 0), (0, 0), (0, -1.9), (-0.6, -1.1), (0, -1.9), (0.6, -1.1)],
    [Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.LINETO],
)


# In legend order. The colours are those of Okabe and Ito, and then of Tol: within each of GROUPS
# they can be told apart with all common kinds of colour vision, and markers differ as well.
FAMILIES = {
    "reinforce": Style("#0072B2", "s"),
    "nvil": Style("#000066", "p"),
    "muprop": Style("#882255", "h"),
    "multisample": Style("#D6A400", "d"),
    "vimco": Style("#999933", "H"),
    "without_replacement": Style("#CC6677", "8"),
    "perturbation": Style("#44AA99", "^"),
    "arm": Style("#56B4E9", "D"),
    "flips": Style("#117733", "v"),
    "path_integral": Style("#999933", "<"),
    "rebar": Style("#882255", "p"),
    "concrete": Style("#E69F00", "^"),
    "gumbel_rao": Style("#882255", "<"),
    "mean_field": Style("#CC79A7", "X"),
    "straight_through": Style("#009E73", "o"),
    "zgr": Style("#5B4BC4", "d"),
    "foust": Style("#882255", "H"),
    "combination": Style("#999933", "8"),
    "weights": Style("#661100", "h"),
    "psa": Style("#D55E00", "P"),
    "exact": Style("#000000", ""),
}

# Where one figure of all estimators would be too full, there is one for each of these.
GROUPS = {
    "score": (
        "reinforce",
        "nvil",
        "muprop",
        "multisample",
        "vimco",
        "without_replacement",
        "perturbation",
    ),
    "differences": ("arm", "flips", "path_integral", "rebar"),
    "straight-through": ("straight_through", "zgr", "foust", "combination", "weights"),
    "relaxed": ("concrete", "gumbel_rao", "mean_field", "psa"),
}

# Lines that are no estimators, such as problems and optimisers, in this order.
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
_VARIANTS = ("v", "^", "<", ">", "o", "s", "D")  # the markers of estimators of one family


Rows: TypeAlias = pd.DataFrame | Iterable[str]


def families_in(rows: Rows) -> dict[str, str]:
    """Return the families of estimators, by their names without arguments.

    Args:
        rows: a frame with the columns "estimator" and "family", such as ``gradbench.summary``
            returns. Without the latter, or of names alone, the families of the package are known.
    """
    known = dict(index.families())
    if isinstance(rows, pd.DataFrame) and "family" in rows:
        once = rows.drop_duplicates("estimator")
        known |= dict(zip(map(family, once["estimator"]), once["family"], strict=True))
    return known


def family_of(estimator: str, families: Mapping[str, str] | None = None) -> str:
    """Return the family of an estimator, its own name where that is unknown.

    Args:
        estimator: its name, with or without arguments.
        families: as ``families_in`` returns them; those of the package by default.
    """
    known = index.families() if families is None else families
    return known.get(family(estimator), family(estimator))


def group_of(estimator: str, families: Mapping[str, str] | None = None) -> str:
    """Return the one of ``GROUPS`` that an estimator belongs to, "other" where there is none."""
    own = family_of(estimator, families)
    return next((name for name, group in GROUPS.items() if own in group), "other")


def in_order(rows: Rows) -> list[str]:
    """Return the estimators of a frame, or these names, in legend order."""
    order, families = list(FAMILIES), families_in(rows)

    def rank(name: str) -> tuple[int, bool, str, bool, list[float], str]:
        numbers = [float(text) for text in re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?", name)]
        own, whole = family(name), family_of(name, families)
        place = order.index(whole) if whole in FAMILIES else len(order)
        return place, own != whole, own, label(name) != name, numbers, name

    return sorted(set(rows["estimator"] if isinstance(rows, pd.DataFrame) else rows), key=rank)


def styles(rows: Rows) -> dict[str, Style]:
    """Return a style for each estimator of ``rows``, a frame or names, in legend order.

    Estimators of one family differ in shade and marker, as do those of unknown families.
    """
    names, families = in_order(rows), families_in(rows)
    texts = display_names(names, names_in(rows) if isinstance(rows, pd.DataFrame) else {})
    whole = {name: family_of(name, families) for name in names}
    own = {name: one if one in FAMILIES else "" for name, one in whole.items()}
    chosen = {}
    for name in names:
        variants = [other for other in names if own[other] == own[name]]
        style = FAMILIES.get(own[name], _OTHER)
        if len(variants) > 1:
            k = variants.index(name)
            color = _darker(style.color, 0.45 * (1 - k / (len(variants) - 1)))
            style = Style(color, _VARIANTS[k % len(_VARIANTS)])
        chosen[name] = style._replace(label=texts[name])
    return chosen


def family_styles(rows: Rows) -> dict[str, Style]:
    """Return the style of its family for each estimator, in legend order.

    It is for figures whose legend tells families. All unknown families look the same.
    """
    families = families_in(rows)
    return {name: FAMILIES.get(family_of(name, families), _OTHER) for name in in_order(rows)}


def _darker(color: str, share: float) -> str:
    red, green, blue = ((1.0 - share) * part for part in colors.to_rgb(color))
    return colors.to_hex((red, green, blue))
