# What estimators are made of, listed once.

from .autodiff import gradient_term as gradient_term
from .autodiff import surrogate_gradient as surrogate_gradient
from .pytrees import layer_names as layer_names
from .pytrees import layer_vectors as layer_vectors
from .run import draw_state as draw_state
from .run import rollout as rollout
from .run import run_model as run_model
from .run import sampled as sampled
from .surrogate import surrogate_loss as surrogate_loss
from .surrogate import unitwise as unitwise
