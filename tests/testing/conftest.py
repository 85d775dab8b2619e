"""What the tests of the certificate share."""

import pytest

from gradbench.testing import certificate
from gradbench.testing.problems import problems


@pytest.fixture
def only(monkeypatch):
    """``only("two layers", ...)``: the check is made on these problems, without the conduct."""

    def choose(*names):
        chosen = lambda seed: tuple(p for p in problems(seed) if p.name in names)  # noqa: E731
        monkeypatch.setattr(certificate, "problems", chosen)
        monkeypatch.setattr(certificate, "conduct", lambda *_: [])

    return choose
