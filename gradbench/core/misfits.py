"""What is said of models that do not run, or that an estimator is not made for."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradbench.core.contract import Example, Params, Site
from gradbench.core.errors import GradbenchError

# What a model raises at parameters or an example of another form; other errors are its own bugs.
MISFITS = (TypeError, ValueError, LookupError, AttributeError, NameError)
_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


def does_not_run(error: Exception, params: Params, example: Example, batched: bool) -> str:
    """Return what is wrong with a model that raises an exception, as a sentence.

    ``example`` is one example, or several of them if ``batched``.
    """
    if isinstance(error, _VALUES):
        return (
            "the model needs the values of its arguments, as Python's if, float() and NumPy do; "
            "use jnp.where, jax.numpy or jax.pure_callback"
        )
    if isinstance(error, NameError):
        if "axis name" not in str(error):
            raise error
        return (
            "the model averages over an axis of the batch, and an estimator runs it on one example "
            "at a time; give BatchNorm its running averages (equinox.nn.inference_mode) and update "
            "them beside the training, or take LayerNorm"
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    numbers = [path for path, leaf in leaves if type(leaf) in (int, float)]
    shapes = [str(jnp.shape(leaf)[batched:]) for leaf in jax.tree.leaves(example)]
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    what = f"{type(error).__name__}: {said.rstrip('.')}" if said else type(error).__name__
    some = ", ".join([*shapes[:4], *(["..."] if len(shapes) > 4 else [])])
    sentence = (
        f"the model does not run on these parameters and an example of shapes {some or 'none'} "
        f"({what}); make model, parameters and batch fit each other"
    )
    if numbers:
        place = jax.tree_util.keystr(numbers[0])
        sentence += f", and give arrays where the parameters hold numbers of Python, as at {place}"
    return sentence


def one_layer(name: str, sites: Sequence[Site]) -> Site:
    """Return the only stochastic layer of a model, for estimators that are made for one.

    Raises:
        GradbenchError: there are several.
    """
    if len(sites) != 1:
        raise GradbenchError(
            f"{name} is an estimator for one stochastic layer and got a model of {len(sites)}; "
            "take one that runs through several layers"
        )
    return sites[0]
