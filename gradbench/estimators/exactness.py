"""What an estimator may claim to be exact for; ``gradbench.testing`` certifies it."""

from typing import Literal

Exactness = Literal[
    "exact", "unbiased", "one layer", "quadratic", "multilinear", "linear", "biased"
]
EXACTNESS: dict[str, str] = {
    "exact": "the gradient itself",
    "unbiased": "any objective, any depth",
    "one layer": "one layer and any objective",
    "quadratic": "one layer and objectives of degree up to 2 in each unit",
    "multilinear": "one layer and multilinear objectives",
    "linear": "one layer and linear objectives",
    "biased": "nothing",
}  # what each class is exact for; each but "unbiased" includes those below it

DEPTHS: dict[str, str] = {
    "value": "the value of the loss and the parameters of the objective, at any depth",
    "last layer": "the last layer of units, at any depth",
    "in-trees": "networks in which each unit feeds at most one unit above",
    "width-1 tails": "networks whose layers above the first have one unit each",
    "linear uniform": "any depth with uniform noise, no saturation and a linear objective",
}  # what an estimator that is not "unbiased" may be exact for beside its class
