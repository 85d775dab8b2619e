"""What the literature calls hyper-parameters."""

from collections.abc import Iterable

_SYNONYMS = {
    "temperature": ("tau", "t", "temp", "lambda"),
    "samples": ("K", "k", "n", "num_samples", "n_samples"),
    "draws": ("K", "k", "n"),
    "rate": ("lr", "learning_rate"),
    "slope": ("beta", "scale"),
    "runs": ("auxiliary", "samples", "S"),
}


def synonyms(names: Iterable[str]) -> dict[str, str]:
    """Return the other names of some hyper-parameters, and the own name of each."""
    return {other: own for own in names for other in _SYNONYMS.get(own, ())}
