"""A verdict: decisions that are printed, and shown in notebooks, in words."""

from gradbench.metrics.decisions import Decisions
from gradbench.metrics.verdict_html import html
from gradbench.metrics.verdict_text import in_short, text


class Verdict(Decisions):
    __doc__ = Decisions.__doc__  # in words where they are printed or shown

    def __str__(self) -> str:
        return text(self)

    def __repr__(self) -> str:
        return in_short(self)

    def _repr_html_(self) -> str:
        return html(self)
