"""Checks of what is called: models, losses, and what makes a loss of a model."""

import inspect
from typing import Any

from gradbench.core.errors import GradbenchError


def check_model(model: Any) -> None:
    """Refuse what cannot be called as a model.

    Raises:
        GradbenchError: a class, no function, or a function of other arguments.
    """
    remedy = "give a function model(params, example, binary) -> f, or a network such as an SBN"
    if isinstance(model, type):
        raise GradbenchError(
            f"the model is the class {model.__name__}; give an instance of it, or another function "
            "model(params, example, binary) -> f"
        )
    if not callable(model):
        raise GradbenchError(f"the model is {short(model)}; {remedy}")
    arguments = _arguments(model)
    if arguments is None:
        return
    names, fits = arguments
    if names[1:3] == ["key", "batch"]:
        raise GradbenchError(
            f"the model is {_name(model)}, a loss of (params, key, batch); give the model that it "
            "is made from"
        )
    if not fits:
        raise GradbenchError(
            f"the model {_name(model)} takes the arguments ({', '.join(names)}); {remedy}"
        )


def check_loss(loss: Any) -> None:
    """Refuse what cannot be called as a loss.

    Raises:
        GradbenchError: a class, no function, a model, or a function of other arguments.
    """
    remedy = "give a function loss(params, key, batch), such as gradbench.estimators.disarm(model)"
    if isinstance(loss, type) or not callable(loss):
        raise GradbenchError(f"the loss is {short(loss)}; {remedy}")
    arguments = _arguments(loss)
    if arguments is None:
        return
    names, fits = arguments
    if names[2:3] == ["binary"]:
        raise GradbenchError(f"the loss is {_name(loss)}, a model; {remedy}")
    if not fits:
        raise GradbenchError(
            f"the loss {_name(loss)} takes the arguments ({', '.join(names)}); {remedy}"
        )


def check_maker(make: Any) -> None:
    """Refuse what cannot make a loss of a model.

    Raises:
        GradbenchError: no function, or a function of other arguments.
    """
    remedy = "give a spec such as 'psa', or a function make(model) -> loss"
    if not callable(make):
        raise GradbenchError(f"the estimator is {short(make)}; {remedy}")
    arguments = _arguments(make, 1)
    if arguments and not arguments[1]:
        raise GradbenchError(
            f"the estimator {_name(make)} takes the arguments ({', '.join(arguments[0])}); {remedy}"
        )


def _arguments(function: Any, count: int = 3) -> tuple[list[str], bool] | None:
    """Return the names of the arguments, and whether so many can be given; None if not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return list(signature.parameters), False
    return list(signature.parameters), True


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def short(value: Any) -> str:
    """Return what a thing is, for a sentence: itself where that is short, else its type."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"an object of type {type(value).__name__}"
