"""The gradients that a suite measures against: enumerated, or sampled where that is asked for."""

import math
from typing import Any, Protocol

from jaxtyping import Array

from gradbench.core.atomic import CorruptFile, Json
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.pytrees import layer_vectors
from gradbench.measure import exact_reference
from gradbench.measure.cell import Cell
from gradbench.measure.reference import Reference, Samples, reference
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites import unfinished
from gradbench.suites.problem import Sampled


class Instance(Protocol):
    """What is measured: a model on a batch, at parameters whose checkpoints have ``places``.

    ``reference`` says how gradients are sampled where the model cannot be enumerated; they are
    refused there if it is None.
    """

    @property
    def network(self) -> Model:
        """The model."""

    @property
    def batch(self) -> Batch:
        """The examples."""

    @property
    def reference(self) -> Sampled | None:
        """How gradients are sampled."""

    @property
    def places(self) -> list[CheckpointId]:
        """The places of its checkpoints in results."""

    def key(self, purpose: str) -> Array:
        """Return the key [] of a purpose."""

    def shapes(self) -> Params:
        """Return the shapes and types of the parameters."""

    def loss(self, spec: str) -> Loss:
        """Return an estimator, the same object each time."""

    def cost(self, cell: Cell, spec: str) -> dict[str, float]:
        """Return what a draw of a cell costs that is counted."""

    def restored(self, place: CheckpointId, stored: Params) -> Params:
        """Return the parameters that are ``stored`` at a ``place``, as the model takes them.

        Raises:
            CorruptFile: they are not its own; the message goes on after "the checkpoint".
        """


def load_params(results: Results, built: Instance, place: CheckpointId) -> Params:
    """Return the stored parameters at a place.

    Raises:
        CorruptFile: they are damaged, or not those of the model.
    """
    stored = results.load_checkpoint(place)
    assert stored is not None
    try:
        return built.restored(place, stored)
    except CorruptFile as error:
        raise CorruptFile(
            f"the checkpoint at {'/'.join(map(str, place))} in {str(results.directory)!r} {error}; "
            "delete it and run again"
        ) from None


def load_or_compute_gradient(
    results: Results, built: Instance, place: CheckpointId, params: Params, progress: bool = False
) -> Params:
    """Return the stored gradient [P] of each layer; it is computed and stored if it is missing.

    A sampled one is saved whenever its draws have doubled, and goes on from there.

    Raises:
        GradbenchError: it cannot be computed, or is that of another network.
    """
    stored = results.load_reference(place)
    if stored is None:
        found = _compute(results, built, place, params, progress)
        info: dict[str, Any] = {"route": found.route, "agreement": found.agreement}
        if found.samples is not None:
            info = {"route": found.route, "samples": _said(found.samples)}
        vectors = layer_vectors(found.gradient)
        results.save_reference(place, found.value, vectors, info, found.blocks or ())
        unfinished.remove_gradient(results, place)
        stored = results.load_reference(place)
        assert stored is not None
    elif list(map(len, stored.gradient)) != [vector.size for vector in layer_vectors(params)]:
        raise CorruptFile(
            f"the exact gradient at {'/'.join(map(str, place))} in {str(results.directory)!r} is "
            "that of another network; delete it and run again"
        )
    return stored.gradient


def _compute(
    results: Results, built: Instance, place: CheckpointId, params: Params, progress: bool
) -> Reference:
    how = built.reference
    if how is None:
        return exact_reference.exact_gradient(built.network, params, built.batch)
    return reference(
        built.network,
        params,
        built.batch,
        rel_se=how.rel_se,
        seconds=how.seconds,
        estimators=how.estimator,
        key=built.key(f"reference at {place.checkpoint}"),
        directory=unfinished.gradient_folder(results, place),
        progress=progress,
    )


def _said(samples: Samples) -> Json:
    """Return what is kept of the draws of a sampled gradient beside their blocks."""
    errors = {name: x if math.isfinite(x) else None for name, x in samples.rel_se.items()}
    value_se = samples.value_se if math.isfinite(samples.value_se) else None
    return {
        "estimator": samples.estimator,
        "draws": samples.draws,
        "rel_se": errors,
        "value_se": value_se,
    }
