"""Quantiles and tails of the normal distribution and of Student's t.

They are the functions of ``scipy.special`` behind ``scipy.stats``, imported when they are first
called: ``scipy.stats`` takes longer to import than all of gradbench's readers together.
"""


def normal_quantile(p: float) -> float:
    """Return the x below which a standard normal variable is with probability ``p``."""
    from scipy.special import ndtri

    return float(ndtri(p))


def t_quantile(p: float, dof: float) -> float:
    """Return the x below which Student's t with ``dof`` degrees of freedom is with probability p.

    Pass a small ``p`` for an upper tail, and change the sign: 1 - p would be rounded.
    """
    from scipy.special import stdtrit

    return float(stdtrit(dof, p))


def t_two_sided(t: float, dof: float) -> float:
    """Return the probability that |Student's t| exceeds ``t`` >= 0."""
    from scipy.special import stdtr

    return 2.0 * float(stdtr(dof, -t))
