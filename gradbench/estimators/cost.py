"""What a draw costs, in evaluations."""

import re
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Evaluations per draw and example: of the objective, its gradient in the states, the layers.

    Formulas in L (layers), D (units), n (units of the last layer) and the hyper-parameters, such as
    ``Cost("samples", layers="samples * L")``. A layer is evaluated once for each states below it
    and once for a sheet of single flips (``flip_pullback``), the objective once for each flip.
    """

    objective: str = "1"
    gradient: str = "0"
    layers: str = "L"

    def __str__(self) -> str:
        if self.gradient == "0":
            return self.objective
        times = "G" if self.gradient == "1" else f"{_factor(self.gradient)} G"
        return times if self.objective == "0" else f"{self.objective} + {times}"

    def evaluate(self, **sizes: Any) -> tuple[int, int, int]:
        """The three numbers for given ``sizes``: L, D, n and the hyper-parameters."""
        objective, gradient, layers = (eval(text, {"__builtins__": {}}, sizes) for text in self)
        return int(objective), int(gradient), int(layers)

    def __add__(self, other: Any) -> "Cost":
        return Cost(*(_sum(a, b) for a, b in zip(self, other, strict=True)))

    def times(self, n: Any) -> "Cost":
        """The cost of n draws."""
        return Cost(*(_product(str(n), part) for part in self))

    def at(self, **hyperparameters: Any) -> "Cost":
        """The formulas with the values of ``hyperparameters`` in the place of their names."""
        if not hyperparameters:
            return self
        names = re.compile(rf"\b({'|'.join(hyperparameters)})\b")
        return Cost(*(names.sub(lambda m: repr(hyperparameters[m[1]]), part) for part in self))


def _factor(formula: str) -> str:
    return formula if formula.isalnum() else f"({formula})"


def _sum(a: str, b: str) -> str:
    if "0" in (a, b):
        return b if a == "0" else a
    return str(int(a) + int(b)) if a.isdigit() and b.isdigit() else f"{a} + {b}"


def _product(n: str, part: str) -> str:
    if part in ("0", "1"):
        return n if part == "1" else "0"
    return str(int(n) * int(part)) if n.isdigit() and part.isdigit() else f"{n} * {_factor(part)}"


ONE = Cost()
