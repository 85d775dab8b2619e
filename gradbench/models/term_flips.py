"""Single flips of the units of a layer in an objective that is a sum of terms of all layers.

Two terms see the states x of layer k: its own, and that of the layer above, as the states below it
and by the pre-activations there. An objective may have the methods ``own_flips(k, tolerance)`` and
``flips_below(k, layer above, tolerance)``, which return a ``TermFlips`` if they know how all flips
of layer k change either term at once. Otherwise units are flipped in turn.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float

from gradbench.core.contract import Example, Params, Trace
from gradbench.core.noise import Noise, get_noise
from gradbench.core.run import flip
from gradbench.models.flips import one_by_one


class Term(NamedTuple):
    """The arguments of ``term(params, k, noise, below, a, x)`` of an objective, in a run."""

    params: Params
    k: int
    noise: Noise
    below: Any
    a: Array
    x: Array


class TermFlips(Protocol):
    """How a term changes with each unit of a layer flipped."""

    def in_words(self, params: Params) -> str:
        """Return how the changes are computed, for ``params`` that may have no values."""

    def changes(self, term: Term, in_turn: Callable[[], Array]) -> Float[Array, " units"]:
        """Return the changes, or ``in_turn()``, which flips one unit after the other."""


def offered(network: Any, k: int) -> list[TermFlips | None]:
    """Return how flips of layer k are made in its own term, and in that of the layer above."""
    above, none = network.layers[k + 1 : k + 2], lambda *_: None
    own = getattr(network.objective, "own_flips", none)(k, network.tolerance)
    below = getattr(network.objective, "flips_below", none)
    return [own, *(below(k, layer, network.tolerance) for layer in above)]


def changes_of_terms(
    network: Any, params: Params, example: Example, run: Trace, k: int
) -> Float[Array, " units"]:
    """Return how the objective changes with each unit of layer k flipped, in a run."""

    def term(m: int) -> Term:
        below = run.x[m - 1] if m else example
        return Term(params, m, get_noise(network.layers[m].noise), below, run.a[m], run.x[m])

    def own(x: Array) -> Array:
        return network.objective.term(*term(k)._replace(x=x))

    def above(x: Array) -> Array:
        a = network.layers[k + 1](params[k + 1], network.encode(x))
        return network.objective.term(*term(k + 1)._replace(below=x, a=a))

    changes = []
    for m, f, offer in zip((k, k + 1), (own, above), offered(network, k), strict=False):
        in_turn = partial(_in_turn, f, run.x[k], run.x[k].size + (m - k) * run.x[m].size)
        changes.append(offer.changes(term(m), in_turn) if offer else in_turn())
    return sum(changes[1:], changes[0])


def _in_turn(f: Callable[[Array], Array], x: Array, size: int) -> Float[Array, " units"]:
    """Return how ``f(x)`` changes with each unit flipped; a flip works on ``size`` numbers."""
    return one_by_one(lambda i: f(flip(x, i)), x.size, size) - f(x)
