"""The gradient that estimators are compared with: enumerated where that can be done, or sampled."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
from jaxtyping import Array

from gradbench.core.arguments import finite, limit, positive
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.inputs import check_order
from gradbench.core.precision import doubled, float64
from gradbench.core.pytrees import closed, opened
from gradbench.core.seeds import named_seed
from gradbench.core.uniforms import check_key
from gradbench.estimators import check_spec
from gradbench.exact.routes import route_of
from gradbench.exact.size import MEMORY, fits
from gradbench.measure import exact_reference
from gradbench.measure.reference_types import Pilot, Reference, Samples
from gradbench.measure.sampled_reference import (
    FILE,
    FIRST_DRAWS,
    MOST_DRAWS,
    Limits,
    SampledReference,
)

__all__ = ["Pilot", "Reference", "Samples", "reference"]

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
    seconds: float | None = None,
    directory: str | Path | None = None,
    progress: bool = False,
) -> Reference:
    """Return the gradient of the expected loss in float64, whatever the precision of the caller.

    By enumeration it is exact, and checked by a second route and by finite differences. A sampled
    one is the mean of a long run of an unbiased estimator. It comes with ``samples``: the blocks of
    its draws, standard errors, the covariance of each layer, and how the estimator was chosen.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays; ``gradbench.core.pytrees`` says what its layers are.
        batch: examples along the first axis of its leaves.
        memory: bytes that an enumeration may take.
        method: "exact", "sampled", or "auto": exact where the model can be enumerated. All
            following arguments are for a sampled reference.
        rel_se: the relative standard error sqrt(tr Cov r) / |G| to be reached in every layer.
        key: of the random numbers; a fixed one, made from the name "reference", by default.
            Estimators measured against the reference must not share it.
        estimators: a spec, or several to choose from by a pilot; ``CANDIDATES`` by default. The
            pilot measures time, so that its choice may differ between runs: name a single
            estimator to fix it.
        most_draws: the run stops here, with a warning, if a layer is not known so well; at least
            1024, and used up to a power of two.
        seconds: the run also stops, with a warning, before draws that would last longer than this
            in all, as far as those before tell; the first 1024 are always made.
        directory: a folder where the state is saved whenever the draws have doubled. A run that was
            interrupted, or is asked for a smaller ``rel_se`` later, continues from there and ends
            with the same bits as an uninterrupted one (on the same machine).
        progress: whether to show a bar.

    Raises:
        GradbenchError: NaN or infinite parameters, data, loss or gradient; targets or shapes that
            do not fit; an argument out of range, whether it is used or not. For an exact reference:
            a model too large to enumerate, or two routes that disagree. For a sampled one: a biased
            estimator, or one that does not take the model; a directory of another model or other
            settings.
    """
    if method not in METHODS:
        raise GradbenchError(f"method is {method!r}; {did_you_mean(method, METHODS)}")
    limit("memory", memory)
    positive("rel_se", rel_se)
    if not FIRST_DRAWS <= finite("most_draws", most_draws) <= 1 << 32:
        raise GradbenchError(
            f"most_draws is {most_draws!r}; give a number from {FIRST_DRAWS} to 2^32"
        )
    if seconds is not None:
        positive("seconds", seconds)
    specs = _specs(estimators)
    if key is not None:
        check_order(key, batch)
        check_key(key)
    path = _file(directory)
    exact_reference.check_values(model, params, batch)
    params = closed(params, numbers=True)
    if method != "sampled":
        with float64():
            there, data = doubled((params, batch))
            size = route_of(model).size(model, there, data)
            small = method == "exact" or fits(size, there, memory)
        if small:
            found = exact_reference.exact_gradient(model, params, batch, memory)
            return found._replace(gradient=opened(found.gradient))
    if key is None:
        key = jax.random.key(named_seed(0, "reference"))
    with float64():
        params, batch = doubled((params, batch))
        sampling = SampledReference(model, params, batch, key, specs)
        began = time.monotonic()
        state, cell = (
            (sampling.load(path), None) if path and path.exists() else sampling.begin(rel_se)
        )
        end = None if seconds is None else began + seconds
        state = sampling.draw_until(state, cell, Limits(rel_se, most_draws, end), path, progress)
        return sampling.result(state, rel_se, seconds)


def _specs(estimators: str | Sequence[str] | None) -> Sequence[str] | None:
    """Return the specs that a sampled reference is chosen from; None for all candidates.

    Raises:
        GradbenchError: no names, or an estimator that there is not.
    """
    if estimators is None:
        return None
    if not isinstance(estimators, Iterable):
        raise GradbenchError(f"estimators is {estimators!r}; give names, such as 'rloo(samples=4)'")
    specs = [estimators] if isinstance(estimators, str) else list(estimators)
    if not specs:
        raise GradbenchError("estimators is empty; name one, such as 'rloo(samples=4)'")
    for spec in specs:
        check_spec(spec)
    return specs


def _file(directory: str | Path | None) -> Path | None:
    """Return the file of the state in a folder.

    Raises:
        GradbenchError: it is no path.
    """
    if directory is None:
        return None
    try:
        return Path(directory) / FILE
    except TypeError as error:
        raise GradbenchError(f"directory is {directory!r}; give a path") from error
