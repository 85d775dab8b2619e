"""A verdict: decisions that are printed, and shown in notebooks, in words."""

from gradbench.metrics.decisions import Decisions
from gradbench.metrics.verdict_html import html
from gradbench.metrics.verdict_text import in_short, text


class Verdict(Decisions):
    """All decisions on some results, in words where they are printed or shown.

    Attributes:
        cost: what budgets are amounts of: "evaluations", "seconds" or "draws".
        decisions: the cases of each place and layer, by budget.
        shares: the share of the readout in the squared length of the gradient, by place.
        without_cost: the estimators that were left out, as what a draw costs was not stored.
        readout: the layers behind the last units, by place; all others are hidden layers.
    """

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return in_short(self)

    def _repr_html_(self) -> str:
        return html(self)
