"""Exact routes: ways to the expected loss of a kind of model, and how much they take.

A model names its route by an attribute ``exact_route``, or brings one of its own; a model without
one is summed over all paths of its states. Asking for a route loads the routes of the package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.origins import modules_of
from gradbench.core.platform import check_platform
from gradbench.core.registry import Registry


class Size(NamedTuple):
    """The memory and the work that an enumeration takes.

    ``what`` says what is enumerated, as "the states of layers of 5-5 units"; ``entries`` are the
    numbers held at a time and ``work`` the multiply-adds, both for the whole batch.
    """

    what: str
    entries: float
    work: float


@dataclass(frozen=True)
class Route:
    """An exact way to the expected loss of a kind of model.

    A kind of model brings one of its own as an attribute, made of its methods:

        class Ising:
            def __call__(self, params, example, binary): ...

            def expected_loss(self, params, batch): ...

            def size(self, params, batch):
                return Size("the spins of a ring", entries=4 * self.units, work=8 * self.units)

            exact_route = Route("transfer_matrix", expected_loss, size)

    Args:
        name: what references and results call it.
        expected_loss: ``expected_loss(model, params, batch)``, the mean over the batch, a
            differentiable function of the parameters.
        size: ``size(model, params, batch)``; shapes and types of the arguments are enough for it.
        second: the independent route that exact gradients are checked against, or its name; None
            where there is none. All paths of its states can be summed for any model.
    """

    name: str
    expected_loss: Callable[[Any, Params, Batch], Array]
    size: Callable[[Any, Params, Batch], Size]
    second: "str | Route | None" = "brute_force"

    def __call__(self, model: Any, params: Params, batch: Batch) -> Float[Array, ""]:
        """Return the expected loss of a model, mean over the batch.

        Raises:
            GradbenchError: the platform computes wrong values.
        """
        check_platform()
        return self.expected_loss(model, params, batch)


ROUTES: Registry[Route] = Registry("exact route", modules=modules_of("gradbench.exact"))


def find_route(route: str | Route) -> Route:
    """Return the route of that name; a ``Route`` is returned as it is.

    Raises:
        GradbenchError: there is none of that name.
    """
    return route if isinstance(route, Route) else ROUTES.find(route)


def route_of(model: Model) -> Route:
    """Return the exact route of a model: its own, or the sum over all paths.

    Raises:
        GradbenchError: it names a route that does not exist.
    """
    route = getattr(model, "exact_route", "brute_force")
    if not isinstance(route, str | Route):
        raise GradbenchError(
            f"the exact_route of {type(model).__name__} is {route!r}; give a gradbench.exact.Route "
            "or the name of one"
        )
    return find_route(route)
