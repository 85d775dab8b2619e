import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import NESTED, canonical, family, format_spec, label, parse_spec
from gradbench.estimators import ESTIMATORS

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True).filter(
    lambda name: name.isidentifier()
)
WORDS = NAMES.map(lambda name: f"{name}_")  # never a keyword of Python
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.booleans(), st.integers(), FINITE, st.text(max_size=8), st.none())
SPECS = st.tuples(WORDS, st.dictionaries(WORDS, VALUES, max_size=3))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("psa", ("psa", {})),
        (" psa( ) ", ("psa", {})),
        ("concrete(temperature=0.1)", ("concrete", {"temperature": 0.1})),
        ("f(a=-1, b='x', c=True, d=None)", ("f", {"a": -1, "b": "x", "c": True, "d": None})),
    ],
)
def test_a_name_with_literal_arguments_is_read(text, spec):
    assert parse_spec(text) == spec


@given(SPECS)
@pytest.mark.slow
def test_what_is_written_is_read_back(spec):
    assert parse_spec(format_spec(*spec)) == spec


@given(SPECS)
@pytest.mark.slow
def test_the_canonical_text_is_canonical_and_does_not_depend_on_the_order_of_arguments(spec):
    name, arguments = spec
    text = format_spec(name, arguments)
    assert canonical(text) == text
    assert format_spec(name, dict(reversed(arguments.items()))) == text


@given(SPECS)
def test_bools_stay_bools_and_numbers_stay_numbers(spec):
    read = parse_spec(format_spec(*spec)).arguments
    for key, value in spec[1].items():
        assert isinstance(read[key], bool) == isinstance(value, bool)


def test_whole_floats_and_integers_name_the_same_estimator():
    assert canonical("concrete(temperature=1.0)") == "concrete(temperature=1)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "psa(",
        "psa)",
        "two words",
        "if",
        "0.1",
        "a.b",
        "psa(1)",
        "psa(*a)",
        "psa(**a)",
        "psa(a=b)",
        "psa(a=1)(b=2)",
        "psa(a=1, a=2)",
        "psa(a=[1])",
        "psa(a=1+2j)",
        "psa(a=1e999)",
        "psa(a='\\d')",
        "psa(a=1if 1else 2)",
        "psa\x00",
        "psa(a=" + "-" * 5000 + "1)",
        "psa(a=" + "(" * 5000 + "1)",
        "psa(a=" + "9" * 5000 + ")",
    ],
)
def test_anything_else_is_refused_in_one_sentence(text):
    with pytest.raises(GradbenchError, match="malformed; write name or name"):
        parse_spec(text)


@given(st.text(alphabet="ps(a=1.,'\"-e)[]{}*\\ \n", max_size=20))
def test_no_text_ends_in_another_error(text):
    try:
        name, arguments = parse_spec(text)
    except GradbenchError as error:
        assert "malformed" in str(error)
    else:
        assert name.isidentifier()
        assert all(not isinstance(v, float) or math.isfinite(v) for v in arguments.values())


# --- labels ---


@pytest.mark.parametrize(
    ("text", "shown", "of"),
    [
        ("psa", "psa", "psa"),
        ("concrete(temperature=1)", "concrete(temperature=1)", "concrete"),
        ("nested(activations='psa', weights='arm')", "arm x psa", "arm"),
        (
            "nested(activations='concrete(temperature=0.1)', "
            "weights=\"straight_through(proxy='identity')\")",
            "straight_through(proxy='identity') x concrete(temperature=0.1)",
            "straight_through",
        ),
        ("nested", "straight_through x psa", "straight_through"),
        ("nested(weights='arm')", "arm x psa", "arm"),
        ("nested(activations='arm')", "straight_through x arm", "straight_through"),
        ("nested_too(a=1)", "nested_too(a=1)", "nested_too"),
    ],
)
def test_a_nested_estimator_is_called_by_its_two_and_belongs_to_that_of_the_weights(
    text, shown, of
):
    assert (label(text), family(text)) == (shown, of)
    assert label(canonical(text)) == shown and canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    "text",
    [
        "nested",
        "nested()",
        "nested(weights='straight_through')",
        "nested(activations = 'psa()')",
        "nested(weights='straight_through()', activations='psa')",
    ],
)
def test_a_nested_estimator_has_one_canonical_text(text):
    assert canonical(text) == "nested(activations='psa', weights='straight_through')"
    inner = canonical("nested(weights='concrete(temperature=1.0)')")
    assert inner == canonical("nested(weights='concrete(temperature=1)')")


def test_what_a_nested_estimator_is_called_has_the_defaults_of_the_estimator():
    assert ESTIMATORS["nested"].hyperparameters == NESTED


@given(SPECS)
def test_other_estimators_are_called_by_their_text(spec):
    text = format_spec(*spec)
    assert (label(text), family(text)) == (text, spec[0])
