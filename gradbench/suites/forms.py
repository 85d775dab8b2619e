"""Values of TOML files that registries know: layers, objectives, and data sets with arguments."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.fields import Handler, Named, unfit
from gradbench.core.registry import registry
from gradbench.suites.data import DATA, Examples, arguments_of, load_data
from gradbench.suites.own_data import FILE, digest_of_file
from gradbench.suites.parse import parse


@dataclass(frozen=True)
class FormOf:
    """A table that a form of a registry reads, such as ``{ conv = 2, kernel = 3 }``.

    The key that is the name of a form says which. Anything but a table is of the type ``plain``.
    """

    plural: str
    plain: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        kinds = (self.plain, *tables(self.plural).values())
        of_kinds: list[Any] = [TypeAdapter(kind).core_schema for kind in kinds]
        return dict(handler(core_schema.union_schema(of_kinds)))

    def _read(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return parse(self.plain, value)
        forms = tables(self.plural)
        named = [key for key in value if key in forms]
        if len(named) == 1:
            return parse(forms[named[0]], value)
        if named:
            raise unfit(f"give one of {' and '.join(named)}")
        for key in value:
            if (remedy := did_you_mean(key, forms)).startswith("did you mean"):
                raise _refused("unknown", remedy, key, value[key])
        kind = registry(self.plural).kind
        raise unfit(f"name the {kind} by one of the keys {', '.join(sorted(forms))}")


def tables(plural: str) -> dict[str, Any]:
    """Return the forms of a registry that are read from tables, by name.

    Raises:
        GradbenchError: a form is not a dataclass whose first field has its name.
    """
    known = registry(plural)
    found = {}
    for name in known.names():
        form: Any = known[name]
        if not isinstance(form, type):
            continue  # a loss, which TOML says by its name
        parts = fields(form) if is_dataclass(form) else None
        if parts is None or (parts and parts[0].name != name):
            raise GradbenchError(
                f"the {known.kind} {name!r} ({known.facts(name).origin}) cannot be read from a "
                f"table; make it a dataclass whose first field is {name}"
            )
        if parts:
            found[name] = form
    return found


@dataclass(frozen=True)
class ObjectiveName(Named):
    """The name of an objective that needs no table."""

    plural: str = "objectives"

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        found: dict[str, Any] = super().__get_pydantic_json_schema__(schema, handler)
        return found | {"enum": [name for name in found["enum"] if name not in tables(self.plural)]}

    def canonical(self, name: str) -> str:
        """Return the registered name; a ValueError of Pydantic has the remedy."""
        found = super().canonical(name)
        if found in tables(self.plural):
            raise unfit(f"write it as a table with the key {found}")
        return found


# --------------------------------------------------------------------------------------- data sets


@dataclass(frozen=True)
class Data:
    """A data set of ``gradbench.suites.data`` and its arguments.

    A file of data is named as in the file of its problem; ``folder`` is where this path begins.
    """

    name: str
    arguments: Mapping[str, Any]
    folder: str | None = field(default=None, compare=False)

    def located(self, folder: str | None) -> "Data":
        """Return the data set with the place of its file, and the digest of what is in it.

        Raises:
            GradbenchError: it has a file, which cannot be read or holds no data.
        """
        if self.name != FILE:
            return self
        found = replace(self, folder=folder or "")
        digest = self.arguments.get("digest") or digest_of_file(found.path)
        return replace(found, arguments={**self.arguments, "digest": digest})

    @property
    def path(self) -> str:
        """The path of its file."""
        return os.path.join(self.folder or "", self.arguments["file"])

    def load(self, seed: int, replicate: int) -> Examples:
        """Return the examples for a seed and a replicate.

        Raises:
            GradbenchError: see ``load_data``.
        """
        place = {"file": self.path} if self.name == FILE else {}
        return load_data(self.name, {**self.arguments, **place}, seed, replicate)


@dataclass(frozen=True)
class _Named:
    name: Annotated[str, Named("data_sets")]


@dataclass(frozen=True)
class DataTable:
    """The table [data], read as ``Data``: a data set by ``name``, or a ``file``, and arguments."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        sets = []
        for name in DATA.names():
            found = handler(TypeAdapter(arguments_of(DATA[name])).core_schema)
            properties = {"name": {"const": name}, **found.get("properties", {})}
            named = [] if name == FILE else ["name"]
            required = [*named, *found.get("required", [])]
            summary = DATA.facts(name).summary
            sets.append(
                found | {"properties": properties, "required": required, "description": summary}
            )
        return {"anyOf": sets}

    def _read(self, value: Any) -> Data:
        table = dict(parse(dict[str, Any], value))
        # A key that is nearly "name" is told as misspelt; all others are arguments.
        name = {
            key: table.pop(key)
            for key in list(table)
            if key == "name" or ("name" not in table and "mean" in did_you_mean(key, ["name"]))
        }
        if not name and FILE in table:
            name = {"name": FILE}
        return arguments_read(parse(_Named, name).name, {}, table)


@dataclass(frozen=True)
class MeasuredTable:
    """The table [measured]: arguments that replace those of [data], read as ``Data``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Any:
        return core_schema.with_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Handler) -> dict[str, Any]:
        kinds = [arguments_of(DATA[name]) for name in DATA.names()]
        found = [handler(TypeAdapter(kind).core_schema) for kind in kinds]
        return {"anyOf": [{k: v for k, v in each.items() if k != "required"} for each in found]}

    def _read(self, value: Any, info: ValidationInfo) -> Data | None:
        table = parse(dict[str, Any], value)
        data = info.data.get("data")
        if data is None:  # [data] is wrong, which is told already
            return None
        before = {k: v for k, v in data.arguments.items() if k != "digest" or FILE not in table}
        return arguments_read(data.name, before, table)


def arguments_read(name: str, before: Mapping[str, Any], given: Mapping[str, Any]) -> Data:
    """Return a data set with the arguments ``given`` in the place of those ``before``."""
    found = parse(arguments_of(DATA[name]), {**before, **given})
    return Data(name, {key: getattr(found, key) for key in {**before, **given}})


def _refused(fault: str, remedy: str, key: str, value: Any) -> ValidationError:
    """Return the exception about a key of a table, as ``parse`` raises it."""
    about = PydanticCustomError(fault, "{remedy}", {"remedy": remedy})
    details = InitErrorDetails(type=about, loc=(key,), input=value)
    return ValidationError.from_exception_data("table", [details])
