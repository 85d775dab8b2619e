"""Draw the errors of PSA's low-rank flips beside their bounds: ``benchmarks/figures/low-rank.png``.

Every point is the largest error of a pull of a random dense layer, or of a convolution, as a share
of what the bound allows for the largest slope; the lines are ``gradbench.models.low_rank_bound``.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from gradbench.core.noise import get_noise
from gradbench.core.precision import float64
from gradbench.models import Conv, Dense, low_rank_bound
from gradbench.models.layer import axes
from gradbench.models.low_rank import low_rank_pull

WIDTHS = np.logspace(-1.5, 1, 16)
RANKS = (2, 4, 8)
FIGURE = Path(__file__).parent / "figures" / "low-rank.png"


def errors(layer, rank):
    """Return the largest |error| / sum over j of |g_j| |v_ji| max F' at each of ``WIDTHS``."""
    noise, random = get_noise(layer.noise), np.random.default_rng(0)
    shape = jax.eval_shape(layer.init, jax.random.key(0))["weight"].shape

    @jax.jit
    def largest(weight, x, a, g):
        exact = layer.flip_pullback({"weight": weight}, x, -x, a, g)
        found = low_rank_pull(rank, noise.cdf, layer.transposed, 2.0, weight, a, -2 * x, g)
        most = layer.transposed(jnp.abs(weight), jnp.abs(g)) * 2 * noise.derivative_bound(1)
        return jnp.max(jnp.abs(found - exact) / most)

    found = []
    for width in WIDTHS:
        weight = random.uniform(-1, 1, shape)
        weight *= width / 2 / np.max(np.abs(weight))  # states -1 and +1 differ by 2
        x = random.choice([-1.0, 1.0], axes(layer.inputs))
        a, g = 2 * random.normal(size=(2, *axes(layer.outputs)))
        found.append(largest(weight, x, a, g))
    return found


def main() -> None:
    """Draw one panel for each noise."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for panel, noise in zip(panels, ("logistic", "normal"), strict=True):
        layers = {"o": Dense(12, 10, noise), "x": Conv((5, 5, 2), 4, 3, noise=noise)}
        for rank, colour in zip(RANKS, ("C0", "C1", "C2"), strict=True):
            panel.loglog(WIDTHS, low_rank_bound(noise, rank, WIDTHS), colour, label=f"rank {rank}")
            for marker, layer in layers.items():
                panel.loglog(
                    WIDTHS, errors(layer, rank), colour + marker, markersize=3.5, mfc="none"
                )
        panel.axhline(1e-3, color="0.5", linestyle=":")
        panel.text(0.035, 1.2e-3, "default tolerance", color="0.4", fontsize=8)
        panel.set(title=f"{noise} noise", xlabel="V, the largest change of a pre-activation")
        panel.set_ylim(1e-13, 10)
    panels[0].set_ylabel("error, of the largest slope")
    panels[0].plot([], [], "ko", fillstyle="none", markersize=3.5, label="a dense layer")
    panels[0].plot([], [], "kx", markersize=3.5, label="a convolution")
    panels[0].legend(fontsize=8)
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    with float64():
        main()
