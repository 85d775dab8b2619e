"""How estimators look, in every figure: one colour, marker and line per family."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib import colors

from gradbench.core.specs import family, label

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

# Where there are too many lines for these markers.
CROWDED: Any = SETTINGS | {"lines.markersize": 2.4, "lines.linewidth": 0.8}


class Style(NamedTuple):
    """Colour, marker and line style, as matplotlib takes them."""

    color: str
    marker: str
    line: Any = "-"


# In legend order. The colours of Okabe and Ito, and where these end those of Tol: told apart with
# all common kinds of colour vision within each of GROUPS, where markers differ as well.
FAMILIES = {
    "reinforce": Style("#0072B2", "s"),
    "nvil": Style("#000066", "p", "-."),
    "muprop": Style("#882255", "h"),
    "multisample": Style("#D6A400", "d"),
    "vimco": Style("#999933", "H", "-."),
    "without_replacement": Style("#CC6677", "8", (0, (3, 1))),
    "arm": Style("#56B4E9", "D"),
    "flips": Style("#117733", "v"),
    "path_integral": Style("#999933", "<", "-."),
    "rebar": Style("#882255", "p"),
    "concrete": Style("#E69F00", "^"),
    "gumbel_rao": Style("#882255", "<"),
    "mean_field": Style("#CC79A7", "X", (0, (4, 1.2))),
    "straight_through": Style("#009E73", "o"),
    "zgr": Style("#5B4BC4", "d", (0, (5, 1))),
    "foust": Style("#882255", "H"),
    "combination": Style("#999933", "8", "-."),
    "weights": Style("#661100", "h", "-."),
    "psa": Style("#D55E00", "P"),
    "exact": Style("#000000", "", (0, (5, 2))),
}

# The families of estimators that are not called as their family is.
MEMBERS = {
    "moving_average": "reinforce",
    "reinforce_leave_one_out": "reinforce",
    "simple_muprop": "muprop",
    "double_cv": "multisample",
    "rloo": "multisample",
    "rodeo": "multisample",
    "ovis": "vimco",
    "ovis_mc": "vimco",
    "top_c": "without_replacement",
    "unordered_set": "without_replacement",
    "ar": "arm",
    "arms": "arm",
    "disarm": "arm",
    "leg": "flips",
    "measure_valued": "flips",
    "ram": "flips",
    "random_flip": "flips",
    "stochastic_triples": "flips",
    "dynamic_rebar": "rebar",
    "relax": "rebar",
    "gapped_straight_through": "concrete",
    "hard_concrete": "concrete",
    "st_gumbel_softmax": "concrete",
    "stochastic_times_smooth": "concrete",
    "reinmax_rao": "gumbel_rao",
    "ap2": "mean_field",
    "local_reparameterization": "mean_field",
    "deterministic_straight_through": "straight_through",
    "swish_sign": "straight_through",
    "darn": "zgr",
    "mve": "zgr",
    "reinmax": "zgr",
    "st_zgr": "zgr",
    "average": "combination",
    "mean_of": "combination",
    "per_layer": "combination",
    "bayesbinn": "weights",
    "magnitude_aware": "weights",
    "sa": "psa",
}

# Where one figure of all estimators would be too full, there is one for each of these.
GROUPS = {
    "score": ("reinforce", "nvil", "muprop", "multisample", "vimco", "without_replacement"),
    "differences": ("arm", "flips", "path_integral", "rebar"),
    "straight-through": ("straight_through", "zgr", "foust", "combination", "weights"),
    "relaxed": ("concrete", "gumbel_rao", "mean_field", "psa"),
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
_VARIANTS: list[tuple[str, Any]] = [
    ("v", (0, (3, 1))),
    ("^", "-"),
    ("<", (0, (1, 1))),
    (">", "-."),
    ("o", (0, (5, 1, 1, 1))),
    ("s", (0, (6, 2))),
    ("D", (0, (2, 2))),
]


def family_of(estimator: str) -> str:
    """The family of an estimator; of an unknown one its own name."""
    return MEMBERS.get(family(estimator), family(estimator))


def group_of(estimator: str) -> str:
    """Its place in ``GROUPS``, "other" where it has none."""
    return next((name for name, group in GROUPS.items() if family_of(estimator) in group), "other")


def in_order(estimators: Iterable[str]) -> list[str]:
    """The estimators in legend order."""
    order = list(FAMILIES)

    def rank(name: str) -> tuple[int, bool, str, bool, list[float], str]:
        numbers = [float(text) for text in re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?", name)]
        place = order.index(family_of(name)) if family_of(name) in FAMILIES else len(order)
        own = family(name)
        return place, own in MEMBERS, own, label(name) != name, numbers, name

    return sorted(set(estimators), key=rank)


def styles(estimators: Iterable[str]) -> dict[str, Style]:
    """A style per estimator, in legend order; variants differ in shade, marker and line.

    Those of unknown families are variants of one another.
    """
    names = in_order(estimators)
    own = {name: family_of(name) if family_of(name) in FAMILIES else "" for name in names}
    chosen = {}
    for name in names:
        variants = [other for other in names if own[other] == own[name]]
        style = FAMILIES.get(family_of(name), _OTHER)
        if len(variants) > 1:
            k = variants.index(name)
            marker, line = _VARIANTS[k % len(_VARIANTS)]
            style = Style(_darker(style.color, 0.45 * (1 - k / (len(variants) - 1))), marker, line)
        chosen[name] = style
    return chosen


def family_styles(estimators: Iterable[str]) -> dict[str, Style]:
    """The style of its family for each estimator, in legend order: where a legend tells families.

    All families that are not known look the same.
    """
    return {name: FAMILIES.get(family_of(name), _OTHER) for name in in_order(estimators)}


def _darker(color: str, share: float) -> str:
    red, green, blue = ((1.0 - share) * part for part in colors.to_rgb(color))
    return colors.to_hex((red, green, blue))
