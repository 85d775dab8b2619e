"""The message of an error repeats no more of what it was given than a reader can use."""

import pickle

import pytest

from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError, shortened


@pytest.mark.parametrize("kind", [GradbenchError, CorruptFile])
def test_a_name_of_a_million_letters_is_shortened_and_the_remedy_is_kept(kind):
    said = str(kind(f"unknown estimator {'psa' * 333_333!r}; did you mean 'psa'?"))
    assert len(said) < 300 and said.startswith("unknown estimator 'psapsa")
    assert "..." in said and said.endswith("psapsa'; did you mean 'psa'?")
    said = str(kind(f"unknown {'a b ' * 250_000!r}; choose"))
    assert len(said) < 5000 and said.endswith("; choose")


def test_many_lines_are_counted():
    said = str(GradbenchError("\n".join(f"line {k}: wrong" for k in range(1000))))
    assert said.splitlines()[19:] == ["line 19: wrong", "... and 980 more lines"]


def test_an_ordinary_message_is_not_changed_and_survives_a_process_boundary():
    lines = "\n".join(f"line {k}: the file {'x' * 250} is wrong; mend it" for k in range(20))
    for text in ("a; b", "", lines):
        assert str(GradbenchError(text)) == text
        assert str(pickle.loads(pickle.dumps(GradbenchError(text)))) == text
    assert shortened("x" * 60) == "x" * 60 and len(shortened("x" * 61)) < 64
