"""Stochastic binary networks: layers and an objective, a front end that builds model functions.

An ``SBN`` is a model (``gradbench.core.contract``): states x_k = sign(a_k(x_{k-1}; theta_k) - z_k),
and an objective of them. The exact recursion and the fast form of PSA use its structure, a chain.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import pairwise
from numbers import Real
from operator import add
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Example, Params, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import flip
from gradbench.models.chain import Chain, as_pair
from gradbench.models.dense import Dense
from gradbench.models.flips import flip_each, one_by_one
from gradbench.models.layer import units
from gradbench.models.losses import LossFunction, Readout
from gradbench.models.predict import Predicts
from gradbench.models.ranks import low_rank_of
from gradbench.models.term_flips import changes_of_terms, offered

LARGEST = 1e6  # what a state may be: squares of sums of states are numbers still


@dataclass(frozen=True)
class SBN(Chain, Predicts):
    """A stochastic binary network: a chain of stochastic layers, and an objective of the states.

    ``objective`` is a function of the last states, ``objective(theta, x, target)`` such as a
    ``Readout``, or a sum of terms of all layers such as an ``ELBO``. ``states`` are the two values
    that the next layer and the function read for the states -1 and +1: (0, 1) gives the {0,1}
    coding. Examples are pairs ``(input, target)``. The parameters are a tuple with one entry per
    layer and one for the objective.

    ``tolerance`` is the error that single flips may have in PSA, see ``with_tolerance``.

    Raises:
        GradbenchError: shapes that do not chain, or states that are not two different numbers.
    """

    layers: Any
    objective: Any
    states: Any = (-1.0, 1.0)
    tolerance: Any = field(default=0.0, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the coding of the states, and that the shapes chain."""
        states = self.states
        if not (
            isinstance(states, tuple | list)
            and len(states) == 2
            and all(isinstance(x, Real) and abs(x) <= LARGEST for x in states)  # type: ignore[operator]
            and states[0] != states[1]
        ):
            raise GradbenchError(
                f"the states are {states!r}; give two different numbers of at most {LARGEST:.0e}, "
                "such as (0, 1)"
            )
        object.__setattr__(self, "states", tuple(states))
        super().__post_init__()

    @property
    def term(self) -> Callable[..., Array] | None:
        """The function ``term(params, k, noise, below, a, x)``, if the objective is a sum of terms.

        Otherwise it is None.
        """
        return getattr(self.objective, "term", None)

    @property
    def exact_route(self) -> str:
        """The name of the exact route: a closed form, if the objective of one layer has one."""
        single = len(self.layers) == 1
        return "closed_form" if single and hasattr(self.objective, "expected") else "recursion"

    def with_objective(self, objective: Any) -> "SBN":
        """Return the same layers under another objective."""
        return replace(self, objective=objective)

    def with_tolerance(self, tolerance: float) -> "SBN":
        """Return the same network, whose flips may be of low rank, see ``low_rank_bound``."""
        return replace(self, tolerance=tolerance)

    def units_in_words(self, params: Params) -> str:
        """Return what is enumerated, as "5-5-5 hidden units"."""
        return f"{self.widths()} hidden units"

    def encode(self, x: Array) -> Array:
        """Return the values that the next layer reads for states x in {-1, +1}, both [...]."""
        low, high = self.states
        return x if (low, high) == (-1, 1) else (low + high) / 2 + x * ((high - low) / 2)

    def __call__(
        self, params: Params, example: Example, binary: Callable[..., Array]
    ) -> Float[Array, ""]:
        """Return the objective of one example: the model contract.

        Raises:
            GradbenchError: a wrong number of parameter entries, an example that is no pair, or
                states that a layer cannot read.
        """
        x, target, terms = self._run(params, example, binary)
        return reduce(add, terms) if self.term else self.objective(params[-1], x, target)

    @property
    def terms(self) -> Callable[..., tuple[Array, ...]] | None:
        """The function ``terms(params, example, binary)``, if the objective is a sum of terms.

        It gives one term for each layer, which no layer above it can change. Otherwise it is None.
        """
        return self._terms if self.term else None

    def _terms(self, *run: Any) -> tuple[Array, ...]:
        return tuple(self._run(*run)[2])

    def _run(
        self, params: Params, example: Example, binary: Callable[..., Array]
    ) -> tuple[Array, Any, list[Array]]:
        """Return what the objective reads of the last states, the target, and the terms."""
        self.check_entries(params)
        x, target = as_pair(example)
        x, below, terms = jnp.asarray(x), example, []
        for k, (layer, theta) in enumerate(zip(self.layers, params[:-1], strict=True)):
            a = layer(theta, x)
            states = binary(a, layer.noise)
            if self.term:
                terms.append(self._term(params, k, below, a, states))
            x, below = self.encode(states), states
        return x, target, terms

    def flip_pullback(self, params: Params, run: Trace, k: int, g: Array) -> Array:
        """Return sum_j g_j (F(a_j with unit i of layer k flipped) - F(a_j)), j in the layer above.

        PSA needs it. ``run`` is the ``Trace`` of one example, g is [*units of layer k + 1] and the
        result [*units of layer k]. A layer has a fast ``flip_pullback`` where its structure allows
        one; otherwise each input is flipped in turn.
        """
        layer, x, a = self.layers[k + 1], self.encode(run.x[k]), run.a[k + 1]
        pull = getattr(layer, "flip_pullback", None) or partial(flip_each, layer)
        if affine := low_rank_of(layer):
            pull = partial(affine.low_rank_pullback, size=self._size, tolerance=self.tolerance)
        return pull(params[k + 1], x, self.encode(-run.x[k]), a, g)

    @property
    def _size(self) -> float:
        """The distance of the two values of a state."""
        low, high = self.states
        return float(abs(high - low))

    def flip_route(self, k: int, params: Params = None) -> str:
        """Return, in words, how PSA's flips of layer k reach what is above, for some ``params``."""
        routes = [] if k == len(self.layers) - 1 else [self._route_above(k, params)]
        if self.term or not routes:
            routes.append("to the objective: " + self._route_to_objective(k, params))
        return f"layer {k + 1} " + "; ".join(routes)

    def _route_above(self, k: int, params: Params) -> str:
        above, to = self.layers[k + 1], f"to layer {k + 2}"
        name, affine = type(above).__name__, low_rank_of(above)
        if affine and (choice := affine.low_rank_choice(self._size, self.tolerance)):
            return f"{to}: {choice.in_words(params and affine.flip_weight(params[k + 1]))}"
        if hasattr(above, "flip_pullback") and getattr(above, "fast_flips", True):
            return f"{to}: all flips at once, by {name}.flip_pullback"
        return f"{to}: {units(self.layers[k].outputs)} flips in turn, {name} again for each"

    def _route_to_objective(self, k: int, params: Params) -> str:
        name = getattr(self.objective, "__name__", type(self.objective).__name__)
        in_turn = f"{units(self.layers[k].outputs)} flips in turn, {name} again for each"
        if self.term:
            offers = [offer and offer.in_words(params) for offer in offered(self, k)]
            if len(offers) == 1 or not any(offers):
                return offers[0] or in_turn
            own, above = (offer or in_turn for offer in offers)
            return f"in its own term {own}; in that of layer {k + 2} {above}"
        if hasattr(self.objective, "flips"):
            return f"all flips at once, by {name}.flips"
        return in_turn

    def flip_objective(
        self, params: Params, example: Example, run: Trace, k: int
    ) -> Float[Array, " units"]:
        """Return the objective with each unit of layer k flipped, in the run of an example.

        PSA and SA need it.
        """
        x = run.x[k]
        if self.term:
            return run.f + changes_of_terms(self, params, example, run, k)
        if k < len(self.layers) - 1:
            return jnp.full(x.size, run.f)
        theta, read, target = params[-1], self.encode(x), example[1]
        if hasattr(self.objective, "flips"):
            return self.objective.flips(theta, read, self.encode(-x), target)
        return one_by_one(
            lambda i: self.objective(theta, self.encode(flip(x, i)), target), x.size, x.size
        )

    def _term(self, params: Params, k: int, below: Any, a: Array, x: Array) -> Array:
        assert self.term is not None
        return self.term(params, k, get_noise(self.layers[k].noise), below, a, x)


@dataclass(frozen=True)
class RealNetwork(Chain):
    """A chain of layers with a real or deterministic ``activation`` in the place of binary units.

    It has nothing random itself: its weights are made binary by ``BinaryWeights``. ``activation``
    is any JAX function, such as ``jnp.tanh`` or ``jnp.sign``. Parameters and examples are as in
    ``SBN``.

    Raises:
        GradbenchError: shapes that do not chain, or an objective or activation that is no function.
    """

    layers: Any
    objective: Any
    activation: Any = jnp.tanh

    def __post_init__(self) -> None:
        """Check activation and objective, and that the shapes chain."""
        for name in ("objective", "activation"):
            value = getattr(self, name)
            if not callable(value):
                raise GradbenchError(
                    f"the {name} of a real network is {value!r}; give a function, such as "
                    f"{'a Readout' if name == 'objective' else 'jnp.tanh'}"
                )
        super().__post_init__()

    def __call__(self, params: Params, example: Example) -> Float[Array, ""]:
        """Return the objective of one ``example``, a pair ``(input, target)``.

        Raises:
            GradbenchError: as for an ``SBN``.
        """
        self.check_entries(params)
        x, target = as_pair(example)
        x = jnp.asarray(x)
        for layer, theta in zip(self.layers, params[:-1], strict=True):
            x = self.activation(layer(theta, x))
        return self.objective(params[-1], x, target)

    def units_in_words(self, params: Params) -> str:
        """Return what the network consists of, as "5-5-5 real units"."""
        return f"{self.widths()} real units"


def dense_network(
    sizes: tuple[int, ...],
    loss: str | LossFunction = "logistic_loss",
    noise: str | Noise = "logistic",
    states: tuple[float, float] = (-1.0, 1.0),
) -> SBN:
    """Return a chain of dense layers with a ``Readout``.

    Args:
        sizes: inputs, hidden layers and outputs, as (2, 5, 5, 5, 1).
        loss: ``loss(out [outputs], target)`` of the readout, or its name.
        noise: the noise of all units.
        states: the coding of the states, as in ``SBN``.

    Raises:
        GradbenchError: fewer than three sizes, sizes below 1, an unknown loss or noise.
    """
    if len(sizes) < 3 or any(size < 1 for size in sizes):
        raise GradbenchError(
            f"the sizes {sizes} do not make a network; give the inputs, one or more hidden layers "
            "and the outputs"
        )
    pairs: list[tuple[Any, Any]] = list(pairwise(sizes))
    layers = tuple(Dense(inputs, outputs, noise) for inputs, outputs in pairs[:-1])
    return SBN(layers, Readout(*pairs[-1], loss), states)
