# The names of the package, listed once: they are loaded from here when they are first used.

from . import estimators as estimators
from . import exact as exact
from . import metrics as metrics
from . import models as models
from . import plots as plots
from . import suites as suites
from . import testing as testing
from .advise.diagnose import diagnose as diagnose
from .advise.evaluate import evaluate as evaluate
from .advise.evaluate import run as run
from .advise.explain import explain as explain
from .advise.recommend import recommend as recommend
from .advise.results import Results as Results
from .cli.catalogue import available as available
from .cli.show import show as show
from .core.errors import GradbenchError as GradbenchError
from .core.precision import float64 as float64
from .exact import expected_loss as expected_loss
from .exact import moments as moments
from .measure.reference import reference as reference
from .measure.sample import draws as draws
from .metrics import compare as compare
from .metrics import curves as curves
from .metrics import rank as rank
from .metrics import summary as summary
from .models import SBN as SBN
from .models import BinaryWeights as BinaryWeights
from .models import Dense as Dense
from .models import optimisers as optimisers
from .ops.binarize import binarize as binarize
from .ops.expectation import expectation as expectation
from .plots.suite import plot as plot
from .report.html import write_report as write_report
from .results.merge import merge as merge
from .suites.initialise import initialise as initialise
from .suites.runner import describe as describe

__version__: str
