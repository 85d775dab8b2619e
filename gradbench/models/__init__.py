"""Models made of layers and objectives, binary weights, and optimisers of latent weights.

A model is any function ``model(params, example, binary) -> f``, see ``gradbench.core.contract``;
the classes here build such functions.

- Networks: ``SBN``, a chain of stochastic layers under an objective, and ``dense_network``;
  ``BinaryWeights`` of an ``SBN`` or a ``RealNetwork``; ``MultiSample`` for bounds of several runs.
- Layers: ``Dense``, ``Conv``, ``Logits``, made of parts by ``Compose``, ``Add`` and
  ``Concatenate``, with ``AveragePool``; any JAX function by ``Function``; the protocol ``Layer``.
- Objectives: ``Readout`` with a loss, ``ELBO``.
- ``low_rank_bound``: how wrong the flips of PSA are at most between large layers.
- ``optimisers``: gradient transformations of optax for latent weights.

``gradbench.models.structure`` says what a model of your own may offer beyond the contract, and what
reads it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.compose import Add, Compose, Concatenate, Function
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense, Logits
from gradbench.models.elbo import ELBO
from gradbench.models.layer import Layer
from gradbench.models.losses import Readout
from gradbench.models.low_rank import low_rank_bound
from gradbench.models.multisample import MultiSample
from gradbench.models.network import SBN, RealNetwork, dense_network
from gradbench.models.pool import AveragePool

if TYPE_CHECKING:
    from gradbench.models import optimisers

__all__ = [
    "ELBO",
    "SBN",
    "Add",
    "AveragePool",
    "BinaryWeights",
    "Compose",
    "Concatenate",
    "Conv",
    "Dense",
    "Function",
    "Layer",
    "Logits",
    "MultiSample",
    "Readout",
    "RealNetwork",
    "dense_network",
    "low_rank_bound",
    "optimisers",
]


def __getattr__(name: str) -> Any:
    if name == "optimisers":  # loads optax, which nothing else here needs
        return importlib.import_module("gradbench.models.optimisers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
