"""The cost of a draw, counted in evaluations, as formulas that compute and print themselves.

Formulas are written in Python, from the sizes ``L``, ``D`` and ``n`` of a model and from
hyper-parameters of the estimator:

    samples = Formula("samples")
    Cost(samples, layers=samples * L)
"""

import operator
from dataclasses import dataclass
from typing import Any

from gradbench.core.errors import GradbenchError

_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "**": operator.pow}
_RANKS = {"+": 0, "-": 0, "*": 1, "**": 2}  # how tightly they bind
_LEAF = 3  # numbers and names bind tightest


@dataclass(frozen=True)
class Formula:
    """A number that depends on named sizes: ``1 + L * (Formula("samples") - 1)``.

    ``head`` is a number, the name of a size, or the operator between the two ``parts``.
    """

    head: Any
    parts: "tuple[Formula, ...]" = ()

    def at(self, **sizes: Any) -> "Formula":
        """Return the formula with numbers in the place of the names of these ``sizes``."""
        if self.parts:
            return Formula(self.head, tuple(part.at(**sizes) for part in self.parts))
        return Formula(sizes.get(self.head, self.head))

    def evaluate(self, **sizes: Any) -> Any:
        """Return the number for given ``sizes``.

        Raises:
            GradbenchError: the formula has a name that is none of them.
        """
        if self.parts:
            return _OPERATORS[self.head](*(part.evaluate(**sizes) for part in self.parts))
        value = sizes.get(self.head, self.head)
        if isinstance(value, str):
            raise GradbenchError(
                f"the cost depends on {value!r}, which is neither a hyper-parameter nor L, D or n; "
                "write it from those"
            )
        return value

    def __str__(self) -> str:
        if not self.parts:
            return str(self.head)
        left, right = self.parts
        own, space = self._rank, "" if self.head == "**" else " "
        first = f"({left})" if left._rank < own else str(left)
        loose = right._rank < own or (right._rank == own and self.head != "+")
        return f"{first}{space}{self.head}{space}{f'({right})' if loose else right}"

    @property
    def _rank(self) -> int:
        return _RANKS[self.head] if self.parts else _LEAF

    def __add__(self, other: "Formula | int") -> "Formula":
        a, b = self, formula(other)
        if _ZERO in (a, b):
            return b if a == _ZERO else a
        return _folded("+", a, b)

    def __sub__(self, other: "Formula | int") -> "Formula":
        return Formula("-", (self, formula(other)))

    def __mul__(self, other: "Formula | int") -> "Formula":
        a, b = self, formula(other)
        if _ZERO in (a, b):
            return _ZERO
        if _ONE in (a, b):
            return b if a == _ONE else a
        return _folded("*", a, b)

    def __radd__(self, other: int) -> "Formula":
        return formula(other) + self

    def __rmul__(self, other: int) -> "Formula":
        return formula(other) * self

    def __rpow__(self, other: int) -> "Formula":
        return Formula("**", (formula(other), self))


def _folded(head: str, a: Formula, b: Formula) -> Formula:
    """Return the sum or product; of two numbers it is a number again."""
    known = isinstance(a.head, int) and isinstance(b.head, int)
    return Formula(_OPERATORS[head](a.head, b.head)) if known else Formula(head, (a, b))


def formula(part: Any) -> Formula:
    """Return a part of a cost, a formula or a whole number, as a formula.

    Raises:
        GradbenchError: it is neither.
    """
    if isinstance(part, Formula):
        return part
    if not isinstance(part, int) or isinstance(part, bool):
        raise GradbenchError(
            f"the cost has the part {part!r}; give a whole number or a formula such as 2 * L, with "
            "L from gradbench.estimators.cost"
        )
    return Formula(part)


_ZERO, _ONE = Formula(0), Formula(1)
L = Formula("L")  # layers
D = Formula("D")  # units
n = Formula("n")  # units of the last layer


@dataclass(frozen=True)
class Cost:
    """Evaluations per draw and example: of the objective, its gradient in the states, the layers.

    Each is a whole number or a ``Formula`` of L (layers), D (units), n (units of the last layer)
    and the hyper-parameters. A layer is evaluated once for each set of states below it and once
    for a sheet of single flips (``flip_pullback``), the objective once for each flip.

    Raises:
        GradbenchError: a part is neither a whole number nor a formula.
    """

    objective: Formula | int = _ONE
    gradient: Formula | int = _ZERO
    layers: Formula | int = L

    def __post_init__(self) -> None:
        for name in ("objective", "gradient", "layers"):
            object.__setattr__(self, name, formula(getattr(self, name)))

    @property
    def _parts(self) -> tuple[Formula, Formula, Formula]:
        return formula(self.objective), formula(self.gradient), formula(self.layers)

    def __str__(self) -> str:
        objective, gradient, _ = self._parts
        if gradient == _ZERO:
            return str(objective)
        factor = f"({gradient})" if gradient.parts else str(gradient)
        times = "G" if gradient == _ONE else f"{factor} G"
        return times if objective == _ZERO else f"{objective} + {times}"

    def evaluate(self, **sizes: Any) -> tuple[int, int, int]:
        """Return the three numbers for given ``sizes``: L, D, n and the hyper-parameters."""
        objective, gradient, layers = (int(part.evaluate(**sizes)) for part in self._parts)
        return objective, gradient, layers

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self._parts, other._parts, strict=True)))

    def times(self, draws: Formula | int) -> "Cost":
        """Return the cost of so many draws."""
        return Cost(*(formula(draws) * part for part in self._parts))

    def at(self, **hyperparameters: Any) -> "Cost":
        """Return the cost with the values of ``hyperparameters`` in the place of their names."""
        return Cost(*(part.at(**hyperparameters) for part in self._parts))


ONE = Cost()  # one run of the model
