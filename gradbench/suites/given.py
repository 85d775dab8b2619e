"""A model of a user's own, as the runner of suites measures it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from gradbench.core.atomic import CorruptFile, Json
from gradbench.core.contract import Batch, Loss, Model, Params, is_chain
from gradbench.core.pytrees import layers_of
from gradbench.core.readout import readout_of
from gradbench.core.seeds import named_seed
from gradbench.measure.cell import Cell
from gradbench.measure.fingerprint import fingerprint, model_fingerprint
from gradbench.results.shards import CheckpointId
from gradbench.suites.instance import estimator
from gradbench.suites.problem import Sampled


@dataclass(frozen=True, eq=False)
class GivenInstance:
    """A model on a batch, at parameters that are named, to be used in float64.

    ``checkpoints`` are the parameters in double precision, as ``pytrees.closed`` makes them, by
    name. ``name`` is what tables and figures call the problem.
    """

    name: str
    network: Model
    batch: Batch
    checkpoints: Mapping[str, Params]
    reference: Sampled | None
    seed: int

    @property
    def places(self) -> list[CheckpointId]:
        """The places of its checkpoints in results."""
        return [CheckpointId(self.name, 0, name) for name in self.checkpoints]

    def key(self, purpose: str) -> Array:
        """Return a key [] that depends on the seed and its purpose, and on no name of the model."""
        return jax.random.key(named_seed(self.seed, "evaluate", purpose))

    def shapes(self) -> Params:
        """Return the shapes and types of the parameters."""
        params = next(iter(self.checkpoints.values()))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)

    def loss(self, spec: str) -> Loss:
        """Return an estimator, the same object each time, also of later calls.

        Raises:
            GradbenchError: it does not take the model.
        """
        return estimator(spec, self.network)  # type: ignore[arg-type] # it has a hash, see evaluate

    def cost(self, cell: Cell, spec: str) -> dict[str, float]:
        """Return what a draw of a cell costs that is counted."""
        return cell.cost(spec, self.network, chain=is_chain(self.network))

    def stored(self, name: str) -> tuple[dict[str, np.ndarray], ...]:
        """Return the parameters of a checkpoint as results store them: the leaves of each layer."""
        return tuple(
            {str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)}
            for _, leaves in layers_of(self.checkpoints[name])
        )

    def restored(self, place: CheckpointId, stored: Params) -> Params:
        """Return the parameters of a ``place``, in the form of the model, if they are ``stored``.

        Raises:
            CorruptFile: other ones are.
        """
        own = self.stored(place.checkpoint)
        one, two = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (own, stored))
        same = [path for path, _ in one] == [path for path, _ in two]
        if same and all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True)):
            return self.checkpoints[place.checkpoint]
        raise CorruptFile("has other parameters")

    def readout(self) -> dict[str, list[str]]:
        """Return the layers behind the last units, as the manifest has them by problem."""
        return {self.name: list(readout_of(self.network, self.shapes(), self.batch))}

    def described(self, title: str) -> Json:
        """Return what a manifest says of the problem, with digests of what it was given."""
        params = {name: fingerprint(own) for name, own in self.checkpoints.items()}
        first = next(iter(self.checkpoints.values()))
        found: dict[str, Any] = {"name": self.name, "title": title, "base": self.name}
        found |= {"label": None, "training": None, "checkpoints": list(self.checkpoints)}
        model = model_fingerprint(self.network, first, self.batch)
        given = {"parameters": params, "batch": fingerprint(self.batch), "model": model}
        return found | {"given": given}
