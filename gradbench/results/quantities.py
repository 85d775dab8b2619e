"""What runs of training are judged by: what it is called, and whether more of it is better."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import format_spec, parse_spec


@dataclass(frozen=True)
class Quantity:
    """A curve that runs are judged by.

    Attributes:
        name: that of the curve.
        title: what figures and tables call it.
        larger: whether more of it is better.
        share: whether it is a share, which is printed in per cent.
        searched: whether rates are searched by it, as it is of the training data.
        options: its options, whole numbers of at least 1, with their defaults.
    """

    name: str
    title: str
    larger: bool = False
    share: bool = False
    searched: bool = False
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def column(self) -> str:
        """The column of frames that it is in."""
        return "loss" if self == LOSS else "result"

    @property
    def spec(self) -> str:
        """The text that says it in full."""
        return format_spec(self.name, self.options)

    @property
    def better(self) -> str:
        """What is better, in a word."""
        return "larger" if self.larger else "smaller"

    def cost(self, values: Any) -> Any:
        """Return values of which less is better."""
        return -values if self.larger else values

    def text(self, value: float) -> str:
        """Return a value as it is printed, "" where there is none."""
        if value != value:
            return ""
        return f"{100 * value:.1f} %" if self.share else f"{value:.3f}"


LOSS = Quantity("loss", "training loss", searched=True)
_KNOWN = {
    one.name: one
    for one in (
        Quantity("precision", "precision at {at}", larger=True, share=True, options={"at": 100}),
        Quantity("bound", "bound of -log p, test data", options={"samples": 100}),
        Quantity("mode_loss", "loss at the mode of weights", searched=True),
    )
}


def read_quantity(text: str) -> Quantity:
    """Return the quantity of a text such as "precision(at=100)".

    Raises:
        GradbenchError: an unknown name or option, or one that is no whole number of at least 1.
    """
    name, given = parse_spec(text)
    if name not in _KNOWN:
        raise GradbenchError(f"unknown result {name!r}; {did_you_mean(name, _KNOWN)}")
    known = _KNOWN[name]
    for key, value in given.items():
        if key not in known.options:
            raise GradbenchError(
                f"{name} has no option {key!r}; {did_you_mean(key, known.options)}"
            )
        if type(value) is not int or value < 1:
            raise GradbenchError(f"{name} got {key} = {value!r}; give a whole number of at least 1")
    options: dict[str, Any] = {**known.options, **given}
    return replace(known, title=known.title.format(**options), options=options)


def is_quantity(value: object) -> bool:
    """Return whether a value is the text of a quantity."""
    try:
        return isinstance(value, str) and bool(read_quantity(value))
    except GradbenchError:
        return False


def judged_by(manifest: Mapping[str, Any]) -> Quantity:
    """Return what the runs of some results are judged by: the training loss if nothing else."""
    text = (manifest["suite"].get("plan") or {}).get("result")
    return LOSS if text is None else read_quantity(text)
