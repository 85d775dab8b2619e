"""The page on training is true: its code runs, and its suite is read."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gradbench.suites.parse import parse
from gradbench.suites.suite import SuiteTable, load_suite

PAGE = (Path(__file__).parents[1] / "notebooks" / "guide" / "training.md").read_text()


@pytest.mark.slow
def test_the_code_of_the_page_runs():
    names = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    probabilities = np.exp(names["ensemble"]).sum(1)
    np.testing.assert_allclose(probabilities, 1, rtol=1e-5)
    assert names["logits"].shape == (100, 3) and names["nats"].shape == (100,)
    assert set(np.unique(names["codes"])) == {-1.0, 1.0}


def test_the_suite_of_the_page_is_read():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    table = parse(SuiteTable, tomllib.loads(text))
    assert table.training.recorded[0] == 0 and table.training.recorded[-1] == 2000


def test_train_digits_is_what_the_page_says():
    suite = load_suite("train-digits")
    assert len(suite.estimators) == 21 and suite.estimators[0] == "exact"
    assert [problem.label for problem in suite.problems] == [4, 6, 8, 10]
    assert len(suite.plan.optimisers) == 4 and suite.replicates == 10
    quick = load_suite("train-digits", quick=True)
    assert len(quick.estimators) == 6 and len(quick.problems) == 1
