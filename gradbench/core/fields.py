"""The kinds of values that TOML files hold: annotations for the fields of dataclasses.

A struct that is read from TOML, such as the form of a layer, is a dataclass. Its fields are plain
types (``int``, ``float``, ``bool``, ``str``, ``Literal``, ``tuple``) or the kinds below, which each
say in its own words what to give instead of a value that does not fit:

    @dataclass(frozen=True)
    class ConvForm:
        conv: Count
        kernel: Count = 3

``gradbench.suites.parse.parse`` reads such a struct. Pydantic, which does the work, is imported
when the first struct is read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from gradbench.core import index
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import registry
from gradbench.core.specs import FORM, canonical, family

T = TypeVar("T")
Handler = Callable[[Any], Any]
LARGEST = 2**53  # up to it, every whole number is a float64


@dataclass(frozen=True)
class Whole:
    """A whole number, from ``least`` to ``most``."""

    least: int
    most: int = LARGEST

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        from pydantic_core import core_schema

        upper = f"from {self.least} to {self.most}"
        bounds = upper if self.most < LARGEST else f"of at least {self.least}"
        number = core_schema.int_schema(ge=self.least, le=self.most)
        return _told(number, f"give a whole number {bounds}")


@dataclass(frozen=True)
class Number:
    """A finite number: greater than ``above``, at least ``least`` and less than ``below``."""

    above: float | None = None
    least: float | None = None
    below: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        from pydantic_core import core_schema

        bounds = {"above": self.above, "of at least": self.least, "below": self.below}
        said = " and ".join(f"{word} {at:g}" for word, at in bounds.items() if at is not None)
        number = core_schema.float_schema(
            gt=-1e300 if self.above is None and self.least is None else self.above,
            ge=self.least,
            lt=1e300 if self.below is None else self.below,
            allow_inf_nan=False,
        )
        return _told(number, f"give a finite number {said}".strip())


@dataclass(frozen=True)
class Items:
    """A list of at least ``least`` items, all of them different if ``distinct``."""

    least: int = 1
    distinct: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        bounds = {"minItems": self.least, "uniqueItems": True}
        return {**handler(schema), **(bounds if self.distinct else {"minItems": self.least})}

    def _checked(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(items) < self.least:
            raise unfit(f"give at least {self.least} item{'s' * (self.least > 1)}")
        seen: set[Any] = set()
        for k, item in enumerate(items if self.distinct else ()):
            if item in seen:
                raise unfit("it is there already; give every item once", item=k)
            seen.add(item)
        return items


@dataclass(frozen=True)
class Checked:
    """A value that a function checks, or replaces; its GradbenchError is the remedy."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        from pydantic_core import core_schema

        def checked(value: Any) -> Any:
            try:
                return self.check(value)
            except GradbenchError as error:
                raise unfit(str(error)) from None

        return core_schema.no_info_after_validator_function(checked, handler(source))


@dataclass(frozen=True)
class Named:
    """The name of a thing in the registry of a kind, such as "noises"; an alias is replaced."""

    plural: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        from pydantic_core import core_schema

        text = _told(core_schema.str_schema(), "give a text in quotes")
        return core_schema.no_info_after_validator_function(self.canonical, text)

    def canonical(self, name: str) -> str:
        """Return the registered name; the ValueError of Pydantic has the remedy."""
        known = registry(self.plural)
        try:
            return known.canonical(name)
        except GradbenchError:
            raise unfit(known.suggestion(name)) from None

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        return {**handler(schema), "enum": registry(self.plural).names()}


def unfit(remedy: str, **context: Any) -> Exception:
    """Return the exception that refuses a value; ``item`` says which one of a list is meant."""
    from pydantic_core import PydanticCustomError

    return PydanticCustomError("unfit", "{remedy}", {"remedy": remedy, **context})


def _told(schema: Any, remedy: str) -> Any:
    """Return the schema with one remedy for all that does not fit it."""
    from pydantic_core import core_schema

    return core_schema.custom_error_schema(
        schema,
        custom_error_type="unfit",
        custom_error_context={"remedy": remedy},
        custom_error_message="{remedy}",
    )


def _not_blank(text: str) -> str:
    if not text.strip():
        raise GradbenchError("give a text in quotes")
    return text


def _canonical(text: str) -> str:
    try:
        found = canonical(text)
    except GradbenchError:
        raise GradbenchError(FORM) from None
    if (remedy := index.remedy(family(found))) is not None:
        raise GradbenchError(remedy)
    return found


Count = Annotated[int, Whole(1)]
Natural = Annotated[int, Whole(0)]
Real = Annotated[float, Number()]
Positive = Annotated[float, Number(above=0)]
NotNegative = Annotated[float, Number(least=0)]
Text = Annotated[str, Checked(_not_blank)]
Estimator = Annotated[str, Checked(_canonical)]  # as its canonical text
OneOrMore = Annotated[tuple[T, ...], Items()]
Distinct = Annotated[tuple[T, ...], Items(distinct=True)]
