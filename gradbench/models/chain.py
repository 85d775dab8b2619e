"""A chain of layers under an objective: the common part of all networks."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Batch, Example, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.models.layer import axes, fits

_MEMBERS = ("noise", "inputs", "outputs", "init")


class Chain:
    """A chain of ``layers`` and an ``objective`` of the last states, or of all of them."""

    layers: Any
    objective: Any

    def __post_init__(self) -> None:
        """Refuse layers that do not make a chain.

        Raises:
            GradbenchError: no layers, or shapes that do not chain.
        """
        layers = self.layers
        if not isinstance(layers, tuple | list) or not layers:
            raise GradbenchError(
                f"a network got the layers {layers!r}; give a tuple of at least one layer"
            )
        object.__setattr__(self, "layers", tuple(layers))  # a list would not be hashable
        for k, layer in enumerate(layers, 1):
            if missing := [name for name in _MEMBERS if not hasattr(layer, name)]:
                raise GradbenchError(
                    f"layer {k} is {layer!r}, without {', '.join(missing)}; wrap a function in "
                    "Function or Compose"
                )
            get_noise(layer.noise)
        if not callable(self.objective) and not hasattr(self.objective, "term"):
            raise GradbenchError(
                f"the objective is {self.objective!r}; give a Readout, an ELBO or a function"
            )
        readers = [*layers[1:], *([self.objective] if hasattr(self.objective, "inputs") else [])]
        for k, (below, above) in enumerate(zip(layers, readers, strict=False), 1):
            if not fits(below.outputs, above.inputs):
                has, expected = axes(below.outputs), axes(above.inputs)
                vectors = len(has) == len(expected) == 1
                what = f"{has[0]} units" if vectors else f"states of shape {has}"
                expects = expected[0] if vectors else expected
                raise GradbenchError(
                    f"layer {k} has {what} but the next expects {expects}; make them equal"
                )
        if hasattr(self.objective, "check_network"):
            self.objective.check_network(self)

    def init(self, key: Array) -> tuple[Params, ...]:
        """Return random parameters; ``()`` for an objective that has none."""
        parts = (*self.layers, self.objective)
        keys = jax.random.split(key, len(parts))
        return tuple(
            part.init(k) if hasattr(part, "init") else ()
            for part, k in zip(parts, keys, strict=True)
        )

    def check(self, params: Params, batch: Batch) -> None:
        """Refuse values that no gradient can be computed from. The batch must be concrete.

        Raises:
            GradbenchError: a wrong number of parameter entries, or targets that the objective is
                not made for.
        """
        self.check_entries(params)
        if hasattr(self.objective, "check_targets"):
            self.objective.check_targets(np.asarray(as_pair(batch)[1]))

    def widths(self) -> str:
        """Return the number of units of each layer, as "5-5-5"."""
        return "-".join(str(math.prod(axes(layer.outputs))) for layer in self.layers)

    def check_entries(self, params: Params) -> None:
        """Refuse parameters that are not one entry per layer and one for the objective.

        Raises:
            GradbenchError: no tuple, or another number, which it gives.
        """
        if isinstance(params, str) or not isinstance(params, Sequence):
            array = isinstance(params, jax.Array | np.ndarray)
            kind = "array" if array else type(params).__name__
            raise GradbenchError(
                f"a network of {len(self.layers)} layers got parameters of type {kind}; give a "
                "tuple with one entry per layer and one for the objective"
            )
        if len(params) != len(self.layers) + 1:
            raise GradbenchError(
                f"a network of {len(self.layers)} layers got {len(params)} parameter entries; give "
                "one per layer and one for the objective"
            )


def as_pair(example: Example) -> tuple[Array, Array]:
    """Return the input and the target of an example.

    Raises:
        GradbenchError: the example is no pair.
    """
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise GradbenchError(
            f"a network got examples of type {type(example).__name__}, not pairs; "
            "give (inputs, targets)"
        )
    return example[0], example[1]
