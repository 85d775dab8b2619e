"""Bias and deviation over replicates, or the limit of a bias that is not seen."""

import numpy as np
import pandas as pd

from gradbench.plots.layout import NOTHING


def over_replicates(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the root mean square over replicates, or its upper limit, for each value of ``by``.

    Args:
        frame: rows with the columns ``square`` and ``se``, its standard error.
        by: the column to group by.

    Returns:
        A frame indexed by ``by``: value (the root mean square where it is seen, else the upper
        limit), low and high (the band of replicates), seen. A single replicate may have a negative
        square: the band ends at the error of the mean. Values that are rounding are left out.
    """
    frame = frame.dropna(subset=["square", "se"])
    groups = frame["square"].groupby(frame[by])
    mean = groups.mean()
    se = np.sqrt((frame["se"] ** 2).groupby(frame[by]).sum()) / groups.size()
    seen = mean > 3.0 * se
    floor = se.clip(lower=NOTHING**2)
    square = mean.where(seen, mean.clip(lower=0.0) + 3.0 * se)
    low, high = groups.min().clip(lower=floor), groups.max().clip(lower=floor)
    points = np.sqrt(pd.DataFrame({"value": square, "low": low, "high": high}))
    return points.assign(seen=seen)[points["value"] > NOTHING]


def bias_and_deviation(summary: pd.DataFrame) -> pd.DataFrame:
    """Return relative |bias| and standard deviation of one draw of each estimator.

    Args:
        summary: the rows of one layer at M = 1, without those of zero gradient; replicates are
            taken together.

    Returns:
        A frame indexed by estimator with the columns ``bias`` (root mean square, or the upper limit
        where none is seen, as in ``growth``), ``seen``, ``std`` and ``theorem`` (whether one says
        that the bias is zero, in all replicates). Zero is 0, unknown is NaN.
    """
    known = summary.dropna(subset=["bias2", "bias2_se"])
    bias = over_replicates(known.assign(square=known["bias2"], se=known["bias2_se"]), "estimator")
    std = over_replicates(summary.assign(square=summary["variance"], se=0.0), "estimator")
    columns = {"bias": bias["value"], "seen": bias["seen"], "std": std["value"]}
    points = pd.DataFrame(columns).reindex(summary["estimator"].unique())
    # A known value without a point is rounding.
    for column, rows in (("bias", known), ("std", summary.dropna(subset=["variance"]))):
        points.loc[points[column].isna() & points.index.isin(rows["estimator"]), column] = 0.0
    theorem = pd.Series(False, points.index)
    if "bias_source" in summary:
        source = summary["bias_source"].eq("theorem")
        theorem |= source.groupby(summary["estimator"]).all().reindex(points.index)
    return points.assign(seen=points["seen"].ne(False), theorem=theorem)
