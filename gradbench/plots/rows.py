"""The rows of a frame that a figure draws."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.metrics import NETWORK
from gradbench.plots.style import GROUPS, Style, families_in, group_of
from gradbench.plots.view import View

MANY = 12  # more estimators do not fit in one panel, nor in one legend
_OTHERS = Style("#d9d9d9", "")  # estimators that a row of panels is not of


def only_one(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse an empty frame, and one with several values in any of ``columns``.

    Raises:
        GradbenchError: it is one of these; the sentence begins with ``what``, a function.
    """
    if frame.empty:
        raise GradbenchError(f"{what}() has nothing to draw: no finished cell; run the suite first")
    for column in columns:
        if (values := frame[column].unique()).size > 1:
            raise GradbenchError(
                f"{what}() draws one {column} at a time and was given {len(values)}; select one, "
                f"frame[frame[{column!r}] == {values[0]!r}]"
            )


def place_of(rows: pd.DataFrame) -> str:
    """Return the checkpoint of some rows, with its loss in a second line."""
    if rows.empty:
        return ""
    loss = f"\nloss {rows['loss'].iloc[0]:.3g}" if "loss" in rows else ""
    return f"{rows['checkpoint'].iloc[0]}{loss}"


def layers_only(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single layers, or those of the network if there are no others."""
    alone = frame[frame["layer"] != NETWORK]
    return frame if alone.empty else alone


def whole(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the rows of all layers together, or of the only layer.

    Raises:
        GradbenchError: there are several layers and no rows of all together.
    """
    network = frame[frame["layer"] == NETWORK]
    if network.empty:
        only_one(frame, ["layer"], what)
    return frame if network.empty else network


def no_cost(what: str) -> GradbenchError:
    """Return the error of a figure that needs costs which were not stored."""
    return GradbenchError(
        f"{what}() got results that do not say what a draw costs, as the run is not finished "
        "(times are measured at its end) or was made by an older gradbench; continue it, or run "
        "the suite again in another directory"
    )


def groups(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each of ``GROUPS`` that has some, without the exact estimator."""
    frame = frame[frame["estimator"].map(family) != "exact"]
    families = families_in(frame)
    own = frame["estimator"].map(lambda name: group_of(name, families))
    parts = {name: frame[own == name] for name in (*GROUPS, "other")}
    return {name: part for name, part in parts.items() if len(part)}


class Row(NamedTuple):
    """A row of panels.

    Attributes:
        name: what it is of.
        frame: the rows of a frame to draw in it.
        style: the estimators to draw, and how.
        legend: the legend of this row, if there are too many estimators for a common one.
    """

    name: str
    frame: pd.DataFrame
    style: dict[str, Style]
    legend: dict[str, Style]


def rows_of(frame: pd.DataFrame, what: str, view: View) -> list[Row]:
    """Return a row of panels for each checkpoint.

    More than 12 estimators have a row for each group of families, with the others in grey.

    Raises:
        GradbenchError: more than 12 estimators at several checkpoints.
    """
    look = view.styles(frame)
    if len(look) <= MANY:
        parts = frame.groupby("checkpoint", sort=False)
        return [Row(place_of(part), part, look, {}) for _, part in parts]
    only_one(frame, ["checkpoint"], what)
    grey = {name: one if family(name) == "exact" else _OTHERS for name, one in look.items()}
    rows = []
    for name, part in groups(frame).items():
        own = view.styles(part)
        # In this order, so that grey is below.
        rows.append(Row(name, frame, {k: v for k, v in grey.items() if k not in own} | own, own))
    return rows


def groups_to_draw(frame: pd.DataFrame) -> list[str | None]:
    """Return the groups of families in a ``frame`` with a figure each; [None] for one of all."""
    return list(groups(frame)) if frame["estimator"].nunique() > MANY else [None]
