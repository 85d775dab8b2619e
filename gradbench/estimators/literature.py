"""Names of the literature beside the aliases that estimators are registered with."""

from collections.abc import Iterable

# What papers and libraries call hyper-parameters, by their names here.
_SYNONYMS = {
    "temperature": ("tau", "t", "temp", "lambda"),
    "samples": ("K", "k", "n", "num_samples", "n_samples"),
    "draws": ("K", "k", "n"),
    "rate": ("lr", "learning_rate"),
    "slope": ("beta", "scale"),
    "scale": ("sigma", "epsilon", "c"),
    "step": ("lambda", "lam"),
    "forward": ("tau_f", "t_f"),
    "backward": ("tau_b", "t_b"),
    "runs": ("auxiliary", "samples", "S"),
}

# Estimators that are not here, and what is nearest to them.
ABSENT = {
    "igr": "the invertible Gaussian reparameterisation is not here; take 'concrete', the nearest",
    "iw_st": "importance-weighted straight-through is not here; take 'agr', the nearest",
    "reinmax_cv": "its paper does not determine it, and it is not here; take 'reinmax_rao'",
}


def synonyms(names: Iterable[str]) -> dict[str, str]:
    """Return the other names of some hyper-parameters, and the own name of each."""
    return {other: own for own in names for other in _SYNONYMS.get(own, ())}
