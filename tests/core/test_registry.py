"""Registries: names, aliases, what is refused and where it stands, entry points, all kinds."""

import importlib
import pkgutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import gradbench
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import KINDS, Registry, is_kind, kind_of, registry

SHAPE = '''\
"""A module of shapes."""
from shapes import SHAPES


@SHAPES.register(aliases=("ball",))
def {name}():
    """Round, all of it.

    As the moon is.
    """
'''


@pytest.fixture
def shapes(monkeypatch, tmp_path):
    """A registry that modules of this folder can import."""
    made = Registry("shape")
    module = type(sys)("shapes")
    module.SHAPES = made
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "shapes", module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_begun", set())
    monkeypatch.setattr(plugins, "_loaded", {})
    yield made
    for name in set(sys.modules) - before:
        if name.startswith("shape_"):
            del sys.modules[name]


def write(folder, module, text=SHAPE, **names):
    path = folder / f"{module}.py"
    path.write_text(text.format(**names))
    return path


# ------------------------------------------------------------------------------ finding


def circle():
    """Round."""


def square():
    """Four equal sides."""


@pytest.fixture
def two():
    made = Registry("shape")
    made.register(aliases=("full_moon",))(circle)
    made.add("unit-square", square, aliases=("box",))
    return made


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("circle", "circle"),
        ("full_moon", "circle"),
        ("full-moon", "circle"),
        ("full moon", "circle"),
        ("Full-Moon", "circle"),
        ("unit_square", "unit-square"),
        ("box", "unit-square"),
    ],
)
def test_names_and_aliases_are_found_with_hyphens_and_underscores_alike(two, spelling, name):
    assert two.canonical(spelling) == two.resolve(spelling) == name
    assert two.find(spelling) is two[name]


@pytest.mark.parametrize(
    ("unknown", "remedy"),
    [
        ("circel", "did you mean 'circle'?"),
        ("full-mon", "did you mean 'circle'?"),  # of an alias, what it stands for
        ("unit-sqare", "did you mean 'unit-square'?"),
        ("xyz", "choose one of circle, unit-square"),
        (3, "choose one of circle, unit-square"),
        ([], "choose one of circle, unit-square"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest_name_or_all(two, unknown, remedy):
    with pytest.raises(GradbenchError) as caught:
        two.find(unknown)
    assert str(caught.value) == f"unknown shape {unknown!r}; {remedy}"
    assert two.resolve(unknown) is None


def test_a_registry_is_a_mapping_in_the_order_of_registration(two):
    assert dict(two) == {"circle": circle, "unit-square": square}
    assert two.names() == ["circle", "unit-square"] and len(two) == 2
    assert "circle" in two and "full_moon" not in two and "triangle" not in two
    two["triangle"] = test_a_registry_documents_its_things
    assert list(two) == ["circle", "unit-square", "triangle"]
    del two["circle"]
    assert list(two) == ["unit-square", "triangle"] and two.resolve("full_moon") is None
    two.add("disc", circle, aliases=("full_moon",))  # both are free again
    assert two.canonical("full-moon") == "disc"


def test_a_registry_documents_its_things(shapes, tmp_path):
    """A docstring, as it is needed above."""
    path = write(tmp_path, "shape_one", name="circle")
    importlib.import_module("shape_one")
    facts = shapes.facts("ball")
    assert facts.summary == "Round, all of it."
    assert facts.doc == "Round, all of it.\n\nAs the moon is."
    line = 1 + path.read_text().splitlines().index('@SHAPES.register(aliases=("ball",))')
    assert (facts.aliases, facts.origin) == (("ball",), f"shape_one.py, line {line}")
    shapes.add("dot", 0, summary="A number.", origin="/somewhere/dots.toml")
    assert shapes.facts("dot")[:2] == ("A number.", "A number.")
    assert shapes.facts("dot").origin == "/somewhere/dots.toml"


def test_what_was_registered_in_a_context_is_gone_after_it(two):
    before = dict(two), two.facts("circle")
    with two.restored():
        two.add("triangle", square, aliases=("delta",))
        del two["circle"]
    assert (dict(two), two.facts("circle")) == before
    assert two.resolve("delta") is None and two.canonical("full moon") == "circle"


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(("name", "taken"), [("circle", "circle"), ("ball", "ball")])
def test_a_redefinition_is_refused_with_file_and_line_of_both(shapes, tmp_path, name, taken):
    write(tmp_path, "shape_one", name="circle")
    write(tmp_path, "shape_two", "\n\n" + SHAPE, name=name)
    importlib.import_module("shape_one")
    thing = shapes["circle"]
    with pytest.raises(GradbenchError) as caught:
        importlib.import_module("shape_two")
    assert str(caught.value) == (
        f"the shape {taken!r} (shape_two.py, line 7) has a name that is taken by 'circle' "
        "(shape_one.py, line 5); give it another name"
    )
    assert dict(shapes) == {"circle": thing} and shapes.canonical("ball") == "circle"


def test_an_alias_that_is_taken_is_refused_and_nothing_is_registered(two):
    with pytest.raises(GradbenchError, match=r"'Full-Moon' \(test_registry.py, line \d+\) has a"):
        two.add("disc", square, aliases=("plate", "Full-Moon"))
    assert list(two) == ["circle", "unit-square"] and two.resolve("plate") is None


@dataclass
class Sized:
    size: int


class Pair(NamedTuple):
    first: int
    second: int


class Documented:
    """A class."""


class Inherited(Documented):
    pass


@pytest.mark.parametrize(
    "thing", [lambda: 0, 3, "text", Sized, Pair, Pair(1, 2), Documented(), Inherited, None]
)
def test_a_thing_without_a_docstring_of_its_own_is_refused_with_file_and_line(two, thing):
    line = sys._getframe().f_lineno + 2
    with pytest.raises(GradbenchError) as caught:
        two.add("thing", thing)
    assert str(caught.value) == (
        f"the shape 'thing' (test_registry.py, line {line}) has no docstring; say in its first "
        "line what it is"
    )
    assert "thing" not in two
    two.add("thing", thing, summary="A thing.")
    two.add("other", thing, source=Documented)
    assert two.facts("other").summary == "A class."


def test_the_same_module_may_register_again(shapes, tmp_path):
    write(tmp_path, "shape_one", name="circle")
    module = importlib.import_module("shape_one")
    (tmp_path / "shape_one.py").write_text(
        SHAPE.format(name="circle").replace('"ball"', '"round_disc"')
    )
    importlib.invalidate_caches()
    importlib.reload(module)
    assert shapes["circle"] is module.circle
    assert shapes.canonical("round_disc") == "circle" and shapes.resolve("ball") is None


# ------------------------------------------------------------------------------ what is loaded


def test_modules_are_imported_when_a_name_is_first_asked_for(shapes, tmp_path):
    shapes._modules.append("shape_one")
    write(tmp_path, "shape_one", name="circle")
    assert "shape_one" not in sys.modules
    assert list(shapes) == ["circle"] and "shape_one" in sys.modules


def test_a_module_that_fails_is_tried_again(shapes, tmp_path):
    shapes._modules.append("shape_one")
    path = write(tmp_path, "shape_one", "x = 1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            shapes.find("circle")
    path.write_text(SHAPE.format(name="circle"))
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    assert shapes.canonical("circle") == "circle"


def test_a_name_of_the_package_is_taken_before_its_modules_are_imported(shapes, tmp_path):
    shapes._modules.append("shape_one")
    write(tmp_path, "shape_one", name="circle")
    with pytest.raises(GradbenchError, match=r"^the shape 'circle' \(test_registry.py, line \d+\)"):
        shapes.add("circle", circle)


def offer(folder, group, module):
    """Something like an installed package."""
    about = folder / "gradbench_shapes-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gradbench-shapes\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[gradbench.{group}]\nround = {module}\n")


@pytest.mark.parametrize("ask", ["find", "names", "suggestion"])
def test_entry_points_are_loaded_when_a_name_is_unknown_or_all_are_listed(shapes, tmp_path, ask):
    shapes.add("square", square)
    offer(tmp_path, "shapes", "shape_one")
    write(tmp_path, "shape_one", name="circle")
    shapes.find("square")
    assert "shape_one" not in sys.modules and list(shapes) == ["square"]
    if ask == "find":
        shapes.find("ball")
    elif ask == "names":
        assert shapes.names() == ["circle", "square"]
    else:
        assert shapes.suggestion("bal") == "did you mean 'circle'?"
    assert plugins.loaded() == ["gradbench-shapes 1.2"]


def test_the_group_of_entry_points_is_the_plural_with_underscores(shapes, tmp_path):
    made = Registry("data shape")
    sys.modules["shapes"].SHAPES = made
    offer(tmp_path, "data_shapes", "shape_one")
    write(tmp_path, "shape_one", name="circle")
    assert made.names() == ["circle"]


def test_a_registry_may_take_what_an_entry_point_names(shapes, tmp_path):
    taken = []
    made = Registry("shape", accept=lambda group, offered: taken.append((group, offered)))
    offer(tmp_path, "shapes", "shape_one:circle")
    write(tmp_path, "shape_one", name="circle")
    made.names()
    made.names()  # once
    assert taken == [("shapes", sys.modules["shape_one"].circle)]


# ------------------------------------------------------------------------------ kinds


def test_every_registry_of_the_package_is_a_kind():
    found = {}
    for module in pkgutil.walk_packages(gradbench.__path__, "gradbench."):
        if not module.name.endswith("__main__"):
            for thing in vars(importlib.import_module(module.name)).values():
                if isinstance(thing, Registry):
                    found[id(thing)] = thing
    kinds = {id(registry(kind)): registry(kind) for kind in KINDS}
    assert [one.plural for key, one in found.items() if key not in kinds] == []
    assert all(isinstance(one, Registry) and one.names() for one in kinds.values())


def test_a_kind_is_known_by_singular_and_plural():
    for kind in KINDS:
        known = registry(kind)
        spellings = (kind, known.plural, known.kind, known.kind.replace(" ", "-"))
        assert all(kind_of(spelling) == kind and is_kind(spelling) for spelling in spellings)
    assert not is_kind("results/psa") and not is_kind(3)


@pytest.mark.parametrize(
    ("unknown", "remedy"), [("estimator s", "did you mean 'estimators'?"), ([], "choose one of ")]
)
def test_an_unknown_kind_is_answered_with_the_closest_one(unknown, remedy):
    with pytest.raises(GradbenchError) as caught:
        registry(unknown)
    assert str(caught.value).startswith(f"unknown kind {unknown!r}; {remedy}")


def test_everything_with_a_name_says_in_a_sentence_what_it_is_and_where():
    for kind in KINDS:
        known = registry(kind)
        for name in known:
            facts = known.facts(name)
            assert len(facts.summary) > 8 and facts.origin, (kind, name)
            file = Path(facts.origin.partition(", line ")[0]).name
            assert file.endswith((".py", ".toml")), (kind, name, facts)
