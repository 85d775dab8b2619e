"""What is said of estimators that were not measured: which, why, and what to do about it."""

from collections.abc import Mapping
from typing import NamedTuple

from gradbench.core.specs import label
from gradbench.metrics.sentences import Sentence, enumeration, names, plain

LATE = "the time limit came first; the same call continues, or give a larger time_limit"
UNASKED = "; measured only if named"  # the end of the reason of an estimator that costs much
_MANY = 12  # names in a row


class Reason(NamedTuple):
    """Some estimators that were not measured for the same reason.

    Attributes:
        why: the reason, and what to do about it.
        estimators: their specs.
        misfit: whether they do not take the model, so that nothing can be done.
    """

    why: str
    estimators: tuple[str, ...]
    misfit: bool

    @property
    def sentence(self) -> Sentence:
        """The estimators and why they were not measured, without a full stop."""
        return (*names(self.estimators, " and ", _MANY), f": {self.why}")

    def __str__(self) -> str:
        return plain(self.sentence)


def reasons(left_out: Mapping[str, str]) -> list[Reason]:
    """Return why estimators were not measured, those first that can be measured if one wants.

    Args:
        left_out: the reason for each, as ``Results.left_out`` has it.
    """
    groups: dict[str, list[str]] = {}
    for spec, why in left_out.items():
        groups.setdefault(why, []).append(spec)
    found = [
        Reason(why, tuple(own), not (why == LATE or why.endswith(UNASKED)))
        for why, own in groups.items()
    ]
    return sorted(found, key=lambda one: (one.misfit, one.why == LATE))


def in_short(left_out: Mapping[str, str]) -> list[str]:
    """Return lines on what could be measured, and one on how many do not take the model."""
    found = reasons(left_out)
    lines = [f"not measured: {one}" for one in found if not one.misfit]
    misfits = [label(spec) for one in found if one.misfit for spec in one.estimators]
    if misfits:
        shown = [*misfits[:3], *[f"{len(misfits) - 3} more"] * (len(misfits) > 3)]
        lines.append(f"not for this model: {enumeration(shown)}; the report says why")
    return lines
