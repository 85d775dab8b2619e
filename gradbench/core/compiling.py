"""How XLA compiles for processes that compile much and compute little."""

import gc
import os
from functools import partial
from importlib.metadata import version

import jax

# The plain emitters of XLA compile in half the time. An unknown flag would be an error, so that
# only those releases 0.N are asked which are known to have it.
FLAGS = {
    "--xla_cpu_use_fusion_emitters=false": range(7, 11),
    "--xla_cpu_parallel_codegen_split_count=1": range(7, 13),
}


def compile_quickly() -> None:
    """Let this process compile quickly, and trace with less collection of garbage.

    It has an effect on compilation only before JAX has computed anything.
    """
    release = int(version("jaxlib").split(".")[1])
    given = os.environ.get("XLA_FLAGS", "")
    flags = [f for f, known in FLAGS.items() if release in known and f.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *flags]).strip()
    gc.set_threshold(50_000, 20, 20)  # tracing makes many objects, and hardly any garbage


# ``jax.jit`` for programs that run for less time than it takes to optimise them.
compile_plainly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
