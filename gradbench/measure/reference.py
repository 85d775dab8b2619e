"""The gradient that estimators are compared with: enumerated, or a long run where it is too large.

A sampled reference is the mean of many draws of an unbiased estimator. Which one is measured: a
pilot takes variance and time of each, and the one that is predicted to reach the precision first
runs. Its draws are kept as the moments of 64 blocks; the number of draws doubles, and neighbouring
blocks are merged, until the relative standard error of every layer is small enough. As the error is
looked at after 1024, 2048, 4096, ... draws alone, a few times in all, the mean at the stop is
hardly biased by the rule (``tests/test_reference.py``).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
from jaxtyping import Array

from gradbench import exact
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.precision import doubled, float64
from gradbench.core.pytrees import closed, opened
from gradbench.core.seeds import named_seed
from gradbench.core.uniforms import check_key
from gradbench.exact.size import MEMORY
from gradbench.measure import exact_reference
from gradbench.measure.exact_reference import Reference
from gradbench.measure.sampled_reference import _FILE, _FIRST, MOST_DRAWS, _Task

METHODS = ("auto", "exact", "sampled")


def reference(
    model: Model,
    params: Params,
    batch: Batch,
    memory: int = MEMORY,
    *,
    method: str = "auto",
    rel_se: float = 0.01,
    key: Array | None = None,
    estimators: str | Sequence[str] | None = None,
    most_draws: int = MOST_DRAWS,
    directory: str | Path | None = None,
    progress: bool = False,
) -> Reference:
    """The gradient of the expected loss in float64, whatever the precision of the caller.

    By enumeration it is exact, and checked by a second route and finite differences. A sampled one
    is the mean of a long run of an unbiased estimator; it comes with ``samples``: the blocks of its
    draws, standard errors, the covariance of each layer, and why that estimator was taken.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays; its layers are as ``gradbench.parameters`` says.
        batch: examples along the first axis of its leaves.
        memory: bytes that an enumeration may take.
        method: "exact", "sampled", or "auto": exact where the model can be enumerated. All that
            follows is for a sampled one.
        rel_se: the relative standard error sqrt(tr Cov r) / |G| to be reached in every layer.
        key: of the random numbers; unless given the same one always, made from the name
            "reference". Estimators measured against the reference must not share it.
        estimators: a spec, or some to choose from by a pilot; ``CANDIDATES`` unless given. The
            pilot measures time, so that what it chooses may differ between runs: name a single one
            to fix it.
        most_draws: at which the run stops, with a warning, if a layer is not known so well; at
            least 1024, and used up to a power of two.
        directory: a folder where the state is saved whenever the draws have doubled. A run that is
            interrupted, or asked for a smaller ``rel_se`` later, goes on from there, and ends in
            the same bits as one that was not (on the same machine).
        progress: whether to show a bar.

    Raises:
        GradbenchError: NaN or infinite parameters, data, loss or gradient, targets or shapes that
            do not fit; of an exact one: a model too large to enumerate, or two routes that
            disagree; of a sampled one: an unknown or biased estimator, one that the model does not
            take, settings out of range, or a directory of another model or other settings.
    """
    if method not in METHODS:
        raise GradbenchError(f"method is {method!r}; {did_you_mean(method, METHODS)}")
    params = closed(params, numbers=True)
    exact_reference.check_values(model, params, batch)
    if method != "sampled":
        with float64():
            there, data = doubled((params, batch))
            small = method == "exact" or exact.is_small(model, there, data, memory)
        if small:
            found = exact_reference.exact_gradient(model, params, batch, memory)
            return found._replace(gradient=opened(found.gradient))
    if not 0.0 < rel_se < math.inf:
        raise GradbenchError(f"rel_se is {rel_se!r}; give a positive number, such as 0.01")
    if not _FIRST <= most_draws <= 1 << 32:
        raise GradbenchError(f"most_draws is {most_draws!r}; give {_FIRST} to 2^32 of them")
    specs = [estimators] if isinstance(estimators, str) else estimators
    if specs is not None and not specs:
        raise GradbenchError("estimators is empty; name one, such as 'rloo(samples=4)'")
    if key is None:
        key = jax.random.key(named_seed(0, "reference"))
    check_key(key)
    with float64():
        params, batch = doubled((params, batch))
        task = _Task(model, params, batch, key, specs)
        path = Path(directory) / _FILE if directory is not None else None
        if path and path.exists():
            state, loss = task.load(path), None
        else:
            state, loss = task.chosen(rel_se)
        state = task.run(state, loss, rel_se, most_draws, path, progress)
        return task.result(state, rel_se)
