"""Stochastic binary networks: layers and an objective, a front end that builds model functions.

An ``SBN`` is a model (``gradbench.model``): states x_k = sign(a_k(x_{k-1}; theta_k) - z_k), and an
objective of them. Its structure, a chain, is what the exact recursion and the fast form of PSA use.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Example, Params, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import flip
from gradbench.models.dense import Dense
from gradbench.models.flips import flip_each, one_by_one
from gradbench.models.layer import axes, fits
from gradbench.models.losses import LossFunction, Readout


class _Chain:
    """What networks share: a chain of layers and an objective."""

    layers: Any
    objective: Any

    def __post_init__(self) -> None:
        """Refuses what is no chain.

        Raises:
            GradbenchError: no layers, or shapes that do not chain.
        """
        layers = self.layers
        if not isinstance(layers, tuple | list) or not layers:
            raise GradbenchError(
                f"a network got the layers {layers!r}; give a tuple of at least one"
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
        """Random parameters; ``()`` for an objective that has none."""
        parts = (*self.layers, self.objective)
        keys = jax.random.split(key, len(parts))
        return tuple(
            part.init(k) if hasattr(part, "init") else ()
            for part, k in zip(parts, keys, strict=True)
        )

    def check(self, params: Params, batch: Batch) -> None:
        """Refuses values that no gradient can be computed from. Needs a concrete batch.

        Raises:
            GradbenchError: wrong number of parameter entries, or targets that the objective is not
                made for.
        """
        self._check_entries(params)
        if hasattr(self.objective, "check_targets"):
            self.objective.check_targets(np.asarray(_pair(batch)[1]))

    def _check_entries(self, params: Params) -> None:
        if len(params) != len(self.layers) + 1:
            raise GradbenchError(
                f"a network of {len(self.layers)} layers got {len(params)} parameter entries; give "
                "one per layer and one for the objective"
            )


_MEMBERS = ("noise", "inputs", "outputs", "init")


def _pair(example: Example) -> tuple[Array, Array]:
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise GradbenchError(
            f"a network got examples of type {type(example).__name__} and not pairs; "
            "give (inputs, targets)"
        )
    return example[0], example[1]


@dataclass(frozen=True)
class SBN(_Chain):
    """A stochastic binary network: a chain of stochastic layers, and an objective of the states.

    ``objective`` is a function of the last states, ``objective(theta, x, target)`` such as a
    ``Readout``, or a sum of terms of all layers such as an ``ELBO``: see ``gradbench.objectives``.
    ``states`` are the two values that the next layer and the function read for the states -1 and
    +1: (0, 1) gives the {0,1} coding. Examples are pairs ``(input, target)``; parameters a tuple
    with one entry per layer and one for the objective.

    Raises:
        GradbenchError: shapes that do not chain, or states that are not two different numbers.
    """

    layers: Any
    objective: Any
    states: Any = (-1.0, 1.0)

    def __post_init__(self) -> None:
        """Checks the coding of the states, and that the shapes chain."""
        states = self.states
        if not (
            isinstance(states, tuple | list)
            and len(states) == 2
            and all(isinstance(value, Real) and math.isfinite(value) for value in states)
            and states[0] != states[1]
        ):
            raise GradbenchError(
                f"the states are {states!r}; give two values that are not equal, as (0, 1)"
            )
        object.__setattr__(self, "states", tuple(states))
        super().__post_init__()

    @property
    def term(self) -> Callable[..., Array] | None:
        """The terms that the objective is a sum of, if it is one."""
        return getattr(self.objective, "term", None)

    def encode(self, x: Array) -> Array:
        """The values that the next layer reads for states x in {-1, +1}, [...] both."""
        low, high = self.states
        return x if (low, high) == (-1, 1) else (low + high) / 2 + x * ((high - low) / 2)

    def __call__(
        self, params: Params, example: Example, binary: Callable[..., Array]
    ) -> Float[Array, ""]:
        """The objective of one example: the model contract.

        Raises:
            GradbenchError: not one entry of ``params`` for each layer and the objective, an example
                that is no pair, or states that a layer cannot read.
        """
        self._check_entries(params)
        x, target = _pair(example)
        f: Any = 0.0
        x, below = jnp.asarray(x), example
        for k, (layer, theta) in enumerate(zip(self.layers, params[:-1], strict=True)):
            a = layer(theta, x)
            states = binary(a, layer.noise)
            if self.term:
                f += self.term(params, k, get_noise(layer.noise), below, a, states)
            x, below = self.encode(states), states
        return f if self.term else self.objective(params[-1], x, target)

    def flip_pullback(self, params: Params, run: Trace, k: int, g: Array) -> Array:
        """For PSA: sum_j g_j (F(a_j with unit i of layer k flipped) - F(a_j)) over the layer above.

        run is a ``gradbench.model.Visit`` of one example; g is [*units of layer k + 1] and the
        result [*units of layer k]. A layer gives it as ``flip_pullback`` where its structure makes
        it cheap; else each input is flipped in turn.
        """
        layer, x, a = self.layers[k + 1], self.encode(run.x[k]), run.a[k + 1]
        pull = getattr(layer, "flip_pullback", None) or partial(flip_each, layer)
        return pull(params[k + 1], x, self.encode(-run.x[k]), a, g)

    def flip_route(self, k: int) -> str:
        """For PSA: in words, how flips of layer k reach the layer above, or the objective."""
        layer = self.layers[k]
        units = math.prod(axes(layer.outputs))
        if k == len(self.layers) - 1:
            name = getattr(self.objective, "__name__", type(self.objective).__name__)
            if not self.term and hasattr(self.objective, "flips"):
                return f"layer {k + 1} to the objective: all flips at once, by {name}.flips"
            return f"layer {k + 1} to the objective: {units} flips in turn, {name} again for each"
        above, name = self.layers[k + 1], type(self.layers[k + 1]).__name__
        to = f"layer {k + 1} to layer {k + 2}"
        if hasattr(above, "flip_pullback") and getattr(above, "fast_flips", True):
            return f"{to}: all flips at once, by {name}.flip_pull"
        return f"{to}: {units} flips in turn, {name} again for each"

    def flip_objective(
        self, params: Params, example: Example, run: Trace, k: int
    ) -> Float[Array, " units"]:
        """For PSA: the objective with each unit of layer k flipped, in a run of an example."""
        x, last = run.x[k], k == len(self.layers) - 1
        if not self.term:
            if not last:
                return jnp.full(x.size, run.f)
            theta, read, target = params[-1], self.encode(x), example[1]
            if hasattr(self.objective, "flips"):
                return self.objective.flips(theta, read, self.encode(-x), target)
            return one_by_one(
                lambda i: self.objective(theta, self.encode(flip(x, i)), target), x.size, x.size
            )

        def terms(x: Array) -> Array:
            """The terms that see the states of layer k."""
            below = run.x[k - 1] if k else example
            f = self._term(params, k, below, run.a[k], x)
            if last:
                return f
            a = self.layers[k + 1](params[k + 1], self.encode(x))
            return f + self._term(params, k + 1, x, a, run.x[k + 1])

        size = x.size if last else x.size + run.x[k + 1].size
        rest = run.f - terms(x)
        return rest + one_by_one(lambda i: terms(flip(x, i)), x.size, size)

    def _term(self, params: Params, k: int, below: Any, a: Array, x: Array) -> Array:
        assert self.term is not None
        return self.term(params, k, get_noise(self.layers[k].noise), below, a, x)


@dataclass(frozen=True)
class RealNetwork(_Chain):
    """A chain of layers with a real or deterministic ``activation`` in the place of binary units.

    The network that binary weights (``gradbench.weights``) are put into alone. ``activation`` is
    any JAX function, such as ``jnp.tanh`` or ``jnp.sign``; parameters and examples are as in
    ``SBN``.

    Raises:
        GradbenchError: shapes that do not chain, or an objective or activation that is no function.
    """

    layers: Any
    objective: Any
    activation: Any = jnp.tanh

    def __post_init__(self) -> None:
        """Checks activation and objective, and that the shapes chain."""
        for name in ("objective", "activation"):
            value = getattr(self, name)
            if not callable(value):
                raise GradbenchError(
                    f"the {name} of a real network is {value!r}; give a function, such as "
                    f"{'a Readout' if name == 'objective' else 'jnp.tanh'}"
                )
        super().__post_init__()

    def __call__(self, params: Params, example: Example) -> Float[Array, ""]:
        """The objective of one ``example``, a pair ``(input, target)``.

        Raises:
            GradbenchError: as of an ``SBN``.
        """
        self._check_entries(params)
        x, target = _pair(example)
        x = jnp.asarray(x)
        for layer, theta in zip(self.layers, params[:-1], strict=True):
            x = self.activation(layer(theta, x))
        return self.objective(params[-1], x, target)


def dense_network(
    sizes: tuple[int, ...],
    loss: str | LossFunction = "logistic_loss",
    noise: str | Noise = "logistic",
    states: tuple[float, float] = (-1.0, 1.0),
) -> SBN:
    """A chain of dense layers, e.g. sizes (2, 5, 5, 5, 1): inputs, hidden layers, outputs.

    ``loss(out [outputs], target)`` is that of the ``Readout``, ``noise`` that of all units,
    ``states`` are as in ``SBN``.

    Raises:
        GradbenchError: fewer than three sizes, sizes below 1, an unknown loss or noise.
    """
    if len(sizes) < 3 or any(size < 1 for size in sizes):
        raise GradbenchError(
            f"the sizes {sizes} do not make a network; give inputs, one or more hidden, outputs"
        )
    pairs: list[tuple[Any, Any]] = list(pairwise(sizes))
    layers = tuple(Dense(inputs, outputs, noise) for inputs, outputs in pairs[:-1])
    return SBN(layers, Readout(*pairs[-1], loss), states)
