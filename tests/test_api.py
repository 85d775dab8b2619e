"""Every public name is documented: parameters, shapes, errors and, of estimators, the source.

What a docstring has to say is found in the code: parameters in the signature, arrays in the
annotations, errors in the syntax tree. ``complaints`` says what it does not say; that it does is
tried on names with one fault each.
"""

import ast
import builtins
import collections.abc
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args, get_origin

import jax
import numpy as np
import pytest
from jaxtyping import Array, Float

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.estimators import ESTIMATORS

SCRIPT = Path(__file__).parents[1] / "notebooks" / "site" / "reference_pages.py"
_spec = importlib.util.spec_from_file_location("api", SCRIPT)
api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(api)


class Name(NamedTuple):
    """A public name: what it is, where it is documented besides, and the class that has it."""

    path: str
    thing: Any  # a module, a class, a function or a constant
    heads: str = ""  # the docstrings of its module and of gradbench, whose conventions hold for it
    owner: type | None = None


def public_names(module: ModuleType) -> Iterator[Name]:
    """The names of ``__all__``, and what belongs to those that are classes."""
    heads = f"{module.__doc__}\n{gradbench.__doc__}"
    yield Name(module.__name__, module, heads)
    for name in module.__all__:
        thing, path = getattr(module, name), f"{module.__name__}.{name}"
        if inspect.ismodule(thing):
            assert thing.__name__ in api.PAGES
            continue
        yield Name(path, thing, heads)
        if inspect.isclass(thing):
            for own, member in members(thing):
                yield Name(f"{path}.{own}", member, heads, thing)


def members(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods and properties as functions, also those of bases in the package."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == cls.__module__.partition(".")[0]:
            found |= vars(base)
    for name, member in found.items():
        function = as_function(member)
        if inspect.isfunction(function) and (name == "__call__" or not name.startswith("_")):
            yield name, function


def as_function(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    if isinstance(member, cached_property):
        return member.func
    return member.__func__ if isinstance(member, classmethod | staticmethod) else member


# ----------------------------------------------------------------------- what there is to be said


def parameters(name: Name) -> list[str]:
    """What a function takes, what a class is made of."""
    thing = name.thing
    if not inspect.isfunction(thing) and not inspect.isclass(thing):
        return []
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return []
    if getattr(thing, "_is_protocol", False):
        return []  # which is not made
    return [own for own in inspect.signature(thing).parameters if own not in ("self", "cls")]


def arrays_without_shape(name: Name) -> list[str]:
    """Parameters, fields and results whose annotation is an array and does not say its shape."""
    annotations = inspect.get_annotations(name.thing)
    return [own for own, annotation in annotations.items() if own != "key" and bare(annotation)]


def bare(annotation: Any) -> bool:
    """Whether there is an array in an annotation; those of jaxtyping have a shape."""
    if annotation in (jax.Array, np.ndarray) or get_origin(annotation) is np.ndarray:
        return True
    if get_origin(annotation) is collections.abc.Callable or hasattr(annotation, "dim_str"):
        return False  # what a function takes is told where it is documented
    return any(map(bare, get_args(annotation)))


class Code(NamedTuple):
    """A function of the package as it is written."""

    name: str
    tree: ast.AST
    names: dict[str, Any]
    owner: type | None


@cache
def code_of(function: Any, owner: type | None) -> Code | None:
    """None for what dataclasses and named tuples make, and for what is not of the package."""
    function = inspect.unwrap(function) if callable(function) else None
    if not inspect.isfunction(function) or function.__module__.startswith(("jax", "numpy")):
        return None
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError:
        return None
    (definition,) = ast.parse(source).body
    definition.decorator_list = []
    return Code(function.__name__, definition, function.__globals__, owner)


def codes(thing: Any, owner: type | None) -> list[Code]:
    """Of a function itself, of a class what makes it."""
    if inspect.isclass(thing):
        made = [getattr(thing, name, None) for name in ("__init__", "__post_init__")]
        return [code for each in made if (code := code_of(each, thing))]
    return [code for code in [code_of(thing, owner)] if code]


def raises(name: Name, by_calls: bool = True) -> bool:
    """Whether there is a ``raise`` of our errors in a function, or in one of ours that it calls."""
    return any(refuses(code, by_calls, ()) for code in codes(name.thing, name.owner))


def refuses(code: Code, by_calls: bool, callers: tuple[str, ...]) -> bool:
    """Private functions count as part of what calls them."""
    if raises_itself(code):
        return True
    if code.name in callers or (callers and not code.name.startswith("_")):
        return False
    further = (called for called in calls(code) if by_calls or called.name.startswith("_"))
    return any(refuses(called, by_calls, (*callers, code.name)) for called in further)


def raises_itself(code: Code) -> bool:
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Raise) and node.exc:
            error = value_of(getattr(node.exc, "func", node.exc), code)
            if inspect.isclass(error) and issubclass(error, GradbenchError):
                return True
    return False


def calls(code: Code) -> Iterator[Code]:
    """What is called when the function is; not what functions in it call when they are."""
    waiting = list(ast.iter_child_nodes(code.tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Call):
            called = value_of(node.func, code)
            module = getattr(called, "__module__", None) or ""
            if module.partition(".")[0] in ("gradbench", __name__):
                of_self = getattr(getattr(node.func, "value", None), "id", "") == "self"
                yield from codes(called, code.owner if of_self else None)


def value_of(node: ast.AST, code: Code) -> Any:
    """What a dotted name stands for, None where it is local."""
    if isinstance(node, ast.Name):
        if node.id == "self":
            return code.owner
        return code.names.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        return getattr(value_of(node.value, code), node.attr, None)
    return None


# ------------------------------------------------------------------------------- what is not said

SHAPE = re.compile(r"\[(\.\.\.|[a-zA-Z*][\w* +]*(, [\w*+ .]+)*)?\]")  # [], [...], [n], [n, 2 P]
RAISES = re.compile(r"^Raises:\n +Gradbench(Error|Warning): \S", re.MULTILINE)
ENGLISH = {"after", "at", "before", "better", "by", "first", "more", "name", "second", "where"}
# A relation, a power, a binary operator or f(...): what no English sentence has.
FORMULA = re.compile(r" [=+*/<>-] |\w\^|\w'?\(\w")


def complaints(name: Name) -> list[str]:
    """What the docstring of a name does not say, one sentence each."""
    thing = name.thing
    if not (inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing)):
        constant = name.path.rpartition(".")[2]
        known = f"``{constant}``" in name.heads
        return [] if known else [f"{name.path} is not in the docstring of its module"]
    own = inspect.cleandoc(thing.__doc__ or "")
    if not own or own.startswith(f"{thing.__name__}("):  # what Python makes of a class
        return [f"{name.path} has no docstring"]
    missing = []
    told = f"{own}\n{inspect.getdoc(name.owner) if name.owner else ''}"
    for parameter in parameters(name):
        if not mentions(told, parameter) and f"``{parameter}``" not in name.heads:
            missing.append(f"{name.path} does not say what {parameter} is")
    if not SHAPE.search(told):
        missing += [f"{name.path} gives no shape of {each}" for each in arrays_without_shape(name)]
    # A method may leave what it calls to the class: most was checked when the object was made.
    if raises(name) and not RAISES.search(own if raises(name, by_calls=False) else told):
        missing.append(f"{name.path} raises a GradbenchError and has no section Raises")
    return missing


def mentions(docstring: str, parameter: str) -> bool:
    """Whether a word is there; one that sentences have anyhow has to be in code or in Args."""
    if parameter in ENGLISH:
        code = re.findall(r"``([^`]+)``|^ +(\w+): ", docstring, re.MULTILINE)
        docstring = " ".join(map("".join, code))
    return bool(re.search(rf"(?<![\w.]){parameter}(?!\w)", docstring))


@pytest.mark.parametrize("page", api.PAGES)
def test_every_public_name_says_what_it_takes_and_returns_and_raises(page):
    module = importlib.import_module(page)
    assert not [line for name in public_names(module) for line in complaints(name)]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_has_a_source_and_begins_with_a_formula(name):
    assert re.search(r"\w{3}", ESTIMATORS[name].source)
    assert FORMULA.search(ESTIMATORS[name].summary)


# ------------------------------------------------------------------------- that the above can fail


def _refuse(value):
    if value:
        raise GradbenchError("no")


def public_refusal(value):
    raise GradbenchError("no")


def silent():
    pass


def unmentioned(one, second):
    """The one of two, and not the ``seconds``."""


def mentioned_by_accident(by):
    """Nothing, done by nobody."""


def shapeless(a: jax.Array) -> None:
    """Of a, in [-1, 1]."""


def shapeless_result() -> tuple[int, np.ndarray] | None:
    """Nothing."""


def refusing():
    """Nothing."""
    raise GradbenchError("no")


def refusing_by_a_private_function():
    """Nothing.

    Raises:
        ValueError: never.
    """
    _refuse(1)


def refusing_by_a_public_function():
    """Nothing."""
    public_refusal(1)


def returning_one_that_refuses():
    """Nothing."""

    def inner():
        raise GradbenchError("no")

    return inner


class Refusing:
    """Nothing."""

    def __init__(self):
        self._check()

    def _check(self):
        raise GradbenchError("no")


class Checked:
    """Nothing.

    Raises:
        GradbenchError: always.
    """

    def call(self):
        """Nothing."""
        public_refusal(self)

    def refuse(self):
        """Nothing."""
        _refuse(self)


class Field(NamedTuple):
    """A field called it."""

    other: int


class Undocumented(NamedTuple):
    field: int


def faultless(a: jax.Array, x: Float[Array, "n"], key: jax.Array) -> None:  # noqa: F821
    """Of a [n] and x, under a key, in silence.

    Raises:
        GradbenchError: always.
    """
    refusing()
    returning_one_that_refuses()


@pytest.mark.parametrize(
    ("thing", "complaint"),
    [
        (silent, "silent has no docstring"),
        (Undocumented, "Undocumented has no docstring"),
        (unmentioned, "unmentioned does not say what second is"),
        (mentioned_by_accident, "mentioned_by_accident does not say what by is"),
        (Field, "Field does not say what other is"),
        (shapeless, "shapeless gives no shape of a"),
        (shapeless_result, "shapeless_result gives no shape of return"),
        *(
            (thing, f"{thing.__name__} raises a GradbenchError and has no section Raises")
            for thing in (
                refusing,
                refusing_by_a_private_function,
                refusing_by_a_public_function,
                returning_one_that_refuses,
                Refusing,
            )
        ),
    ],
)
def test_a_docstring_with_one_fault_is_told(thing, complaint):
    assert complaints(Name(thing.__name__, thing)) == [complaint]


def test_nothing_is_told_of_what_is_documented():
    assert not complaints(Name("faultless", faultless))


def test_a_method_may_leave_what_it_calls_to_its_class_and_not_what_it_raises():
    assert not complaints(Name("call", Checked.call, owner=Checked))
    assert complaints(Name("refuse", Checked.refuse, owner=Checked))


def test_a_constant_has_to_be_in_the_docstring_of_its_module():
    assert complaints(Name("m.LEVEL", 0.95, "Intervals at ``LEVELS``."))
    assert not complaints(Name("m.LEVEL", 0.95, "Intervals at ``LEVEL``."))


def test_a_parameter_may_be_a_convention_of_the_module():
    name = Name("unmentioned", unmentioned, "``second``: what comes after the first.")
    assert not complaints(name)


def test_a_sentence_is_no_formula():
    assert not FORMULA.search("Straight-through of Bengio (2013), a rule local to each unit.")
    assert FORMULA.search("J = db/da, and so on.")


def test_what_is_inherited_private_or_made_by_python_is_looked_at():
    """A sample of what the tests above go through, by the route that finds it."""
    names = {name.path: name for page in api.PAGES for name in pages(page)}
    assert "gradbench.models.Compose.init" in names  # of a private base
    assert "gradbench.metrics.LayerMetrics.accuracy" in names  # a cached property
    assert "gradbench.metrics.Measurement.stored" in names  # a class method
    assert "gradbench.SBN.__call__" in names
    assert {"other"} == set(parameters(Name("Field", Field)))
    for path in (
        "gradbench.estimators.arm",
        "gradbench.Dense",
        "gradbench.suites.Suite.with_until",
    ):
        assert raises(names[path])
    assert arrays_without_shape(names["gradbench.SBN.encode"]) == ["x", "return"]
    assert not raises(names["gradbench.estimators.zgr"])


def pages(page: str) -> Iterator[Name]:
    return public_names(importlib.import_module(page))
