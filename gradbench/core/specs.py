"""Estimator specifications as text: ``"concrete(temperature=0.1)"`` is a name with arguments.

The canonical text names an estimator everywhere: in suite files, result directories and tables.
"""

import ast
import math
import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from gradbench.core import index
from gradbench.core.errors import GradbenchError

FORM = "write name or name(key=literal, ...) with finite numbers, as 'concrete(temperature=0.1)'"
Value = bool | int | float | str | None


class Spec(NamedTuple):
    """The name of an estimator and its hyper-parameters."""

    name: str
    arguments: dict[str, Value]


def parse_spec(text: str) -> Spec:
    """Return the name and the arguments of ``"name"`` or ``"name(key=literal, ...)"``.

    Literals are numbers, strings, True, False and None. In the name, hyphens are read as
    underscores, and so is the point of a number at its end. The registry of estimators checks
    whether name and arguments exist.

    Raises:
        GradbenchError: the text has another form.
    """
    call = _parse(text)
    arguments: dict[str, Value] = {}
    if isinstance(call, ast.Call) and not call.args:
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in arguments:
                raise _malformed(text)
            arguments[keyword.arg] = _literal(text, keyword.value)
        call = call.func
    if not isinstance(call, ast.Name):
        raise _malformed(text)
    return Spec(call.id, arguments)


def format_spec(name: str, arguments: Mapping[str, Value] | None = None) -> str:
    """Return the canonical text, which ``parse_spec`` reads back, arguments sorted by name.

    Whole floats are written as integers, so that ``1`` and ``1.0`` name the same estimator.
    """
    if not arguments:
        return name
    return f"{name}({', '.join(f'{k}={format_value(v)}' for k, v in sorted(arguments.items()))})"


def canonical(text: str) -> str:
    """Return the canonical text of an estimator specification and of those inside it.

    It has the names that estimators are registered by in the place of aliases, with what these
    mean, and both parts of a nested estimator. A name that is unknown stays as it is.

    Raises:
        GradbenchError: the specification is malformed.
    """
    name, arguments = parse_spec(text)
    name, arguments = index.registered_name(name), index.preset(name) | arguments
    if name == "nested":
        arguments = NESTED | arguments
    for key in INNER.get(name, ()):
        if isinstance(value := arguments.get(key), str):
            arguments[key] = ", ".join(parse_specs(value)) if key == "layers" else canonical(value)
    return format_spec(name, arguments)


def parse_specs(text: str) -> tuple[str, ...]:
    """Return the canonical texts of specifications separated by commas: ``"reinforce, psa"``.

    Raises:
        GradbenchError: there is none, or one is malformed.
    """
    source = f"[{text}]"
    try:
        several = _parse(source)
    except GradbenchError:
        several = None
    if not isinstance(several, ast.List) or not several.elts:
        raise GradbenchError(
            f"the estimators {text!r} are malformed; write several with commas, as 'reinforce, psa'"
        )
    return tuple(canonical(ast.get_source_segment(source, one) or "") for one in several.elts)


# The default hyper-parameters of the estimator "nested".
NESTED: dict[str, Value] = {"weights": "straight_through", "activations": "psa"}

# Estimators that are made of others, and which of their hyper-parameters are specs of these.
INNER = {
    "nested": tuple(NESTED),
    "mean_of": ("estimator",),
    "average": ("first", "second"),
    "per_layer": ("layers",),
    "baselined": ("estimator", "baseline"),
}


def label(text: str) -> str:
    """Return what tables and figures call an estimator: "weights x activations" if nested."""
    if not re.match(r"nested\b", text):
        return text
    arguments = NESTED | parse_spec(text).arguments
    return " x ".join(label(str(arguments[part])) for part in NESTED)


def family(text: str) -> str:
    """Return the name of an estimator without its arguments; if nested, of the one of weights."""
    return label(text).partition(" x ")[0].partition("(")[0]


def format_value(value: Value) -> str:
    """Return a literal as text, whole floats as integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return repr(value)


def _parse(text: str) -> ast.expr:
    if not isinstance(text, str):
        raise _malformed(text)
    name = r"^\s*[^\W\d][\w-]*(\.\d+)?"  # with a number at its end in "gst-1.0"
    source = re.sub(name, lambda found: re.sub("[-.]", "_", found[0]), text).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # text that Python only warns about is malformed too
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        raise _malformed(text) from None


def _literal(text: str, node: ast.expr) -> Value:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise _malformed(text) from None
    if value is not None and type(value) not in (bool, int, float, str):
        raise _malformed(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise _malformed(text)
    return value


def _malformed(text: object) -> GradbenchError:
    return GradbenchError(f"the estimator {text!r} is malformed; {FORM}")
