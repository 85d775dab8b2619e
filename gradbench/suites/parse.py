"""Values of TOML read into dataclasses, with all that does not fit.

Pydantic does the reading: of it and msgspec, both tried on the packaged files, it alone reports all
faults of a file at once.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from gradbench.core.errors import did_you_mean

T = TypeVar("T")

# What to give instead, by the kind of an error of Pydantic: for fields of plain types.
REMEDIES = {
    "int_type": "give a whole number",
    "float_type": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give a text in quotes",
    "tuple_type": "give a list, in square brackets",
    "list_type": "give a list, in square brackets",
    "dict_type": "make it a table, with one key a line",
    "dataclass_type": "make it a table, with one key a line",
}


def parse(kind: Callable[..., T], value: Any) -> T:
    """Read a value into a type, such as a dataclass whose fields are of ``gradbench.core.fields``.

    Types are taken strictly (1 is not true, "1" is no number) and unknown keys are refused.

    Raises:
        ValidationError: with all faults. The type of each is "missing", "unknown" or "unfit", and
            its context has the ``remedy``.
    """
    try:
        # As JSON, where a list stands for a tuple and a table for a dataclass, however strict.
        text = json.dumps(_as_json(value))
        found: T = _adapter(kind).validate_json(text, strict=True, extra="forbid")
        return found
    except ValidationError as error:
        raise ValidationError.from_exception_data(error.title, _faults(kind, error)) from None


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _as_json(value: Any) -> Any:
    """Return the value in types of JSON; what has none, such as a date, will fit nowhere."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if type(value) is int and abs(value) > 2**63:  # too large to be written, or for any kind
        return float("inf")
    return value if value is None or isinstance(value, bool | int | float | str) else {}


def _faults(kind: Any, error: ValidationError) -> list[InitErrorDetails]:
    """Return the faults of a struct, with their remedies; a misspelt required key is one fault."""
    errors = error.errors(include_url=False)
    missing = {e["loc"] for e in errors if e["type"] == "missing" and "ctx" not in e}
    found: list[tuple[str, str, ErrorDetails]] = []
    for e in errors:
        context = e.get("ctx", {})
        if "remedy" in context:  # one of our own, perhaps of a struct inside this one
            found.append((e["type"], context["remedy"], e))
        elif e["type"] == "unexpected_keyword_argument":
            *above, key = e["loc"]
            wanted = [str(loc[-1]) for loc in missing if loc[:-1] == tuple(above)]
            if close := difflib.get_close_matches(str(key), wanted, n=1):
                missing.discard((*above, close[0]))
                wanted = close
            else:
                wanted = _keys(kind, above)
            found.append(("unknown", did_you_mean(key, wanted), e))
        elif e["type"] != "missing":
            found.append(("unfit", _remedy(e), e))
    found += [("missing", "add it", e) for e in errors if e["loc"] in missing and "ctx" not in e]
    return [
        InitErrorDetails(
            type=PydanticCustomError(what, "{remedy}", {"remedy": remedy}),
            loc=(*e["loc"], e["ctx"]["item"]) if "item" in e.get("ctx", {}) else e["loc"],
            input=e["input"],
        )
        for what, remedy, e in found
    ]


def _remedy(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        names = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return did_you_mean(error["input"], names)
    message = error["msg"]
    return REMEDIES.get(error["type"], message[:1].lower() + message[1:])


def _keys(kind: Any, path: list[int | str]) -> list[str]:
    """Return the keys of the struct that stands at a path within another."""
    for step in [*path, None]:
        kind = next((part for part in get_args(kind) if is_dataclass(part)), kind)
        if step is None or not is_dataclass(kind):
            break
        kind = get_type_hints(kind)[str(step)]
    return list(get_type_hints(kind)) if is_dataclass(kind) else []
