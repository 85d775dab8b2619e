"""Random numbers that depend on the name of their purpose, not on the order of drawing."""

import hashlib

from numpy.random import Generator, SeedSequence, default_rng

from gradbench.core.arguments import as_int
from gradbench.core.errors import GradbenchError


def named_generator(seed: int, *names: str) -> Generator:
    """Return a numpy generator that depends on a seed and on names, the same on every machine.

    Raises:
        GradbenchError: the seed is not a whole number of at least 0.
    """
    whole = as_int(seed)
    if whole is None or whole < 0:
        raise GradbenchError(f"the seed is {seed!r}; give a whole number of at least 0")
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return default_rng(SeedSequence([whole, *(int.from_bytes(d, "little") for d in digests)]))


def named_seed(seed: int, *names: str) -> int:
    """Return a seed of 32 bits for ``jax.random.key``, from a seed and names.

    Raises:
        GradbenchError: see ``named_generator``.
    """
    return int(named_generator(seed, *names).integers(2**32))
