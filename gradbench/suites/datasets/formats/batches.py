"""The batches of CIFAR-10 for Python, which are pickles, read without unpickling.

A pickle is a program. Here a stack of plain values follows it, which can hold numbers, text, lists,
tuples and dictionaries; what would be called stays a name beside its arguments. Nothing is looked
up, imported or called. A name that a batch does not have is refused, and so is any other
instruction.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradbench.suites.datasets.content import Content

_MOST = 2**26
_MOST_STEPS = 10**6  # of the program: a batch of 10000 images has some 60 thousand
_ENCODE = "_codecs encode"
# What arrays are made of in pickles of numpy, by the names that pickles of all times have for it.
_NAMES = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
    _ENCODE,
}
_MARK = object()


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that such a file may have, None where it is no pickle."""
    return _MOST if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") else None


def read(data: bytes) -> list[Content]:
    """Return pixels [n, 3072], by colour, row and column, and classes [n].

    Raises:
        ValueError: it is no batch, or would run code.
    """
    batch = parse(data)
    if not isinstance(batch, dict):
        raise ValueError("it is a pickle of something else than a batch of images")
    pixels, classes = (batch.get(key, batch.get(key.encode())) for key in ("data", "labels"))
    if not isinstance(classes, list) or not all(
        type(one) is int and 0 <= one <= 255 for one in classes
    ):
        raise ValueError("its labels are no list of classes")
    return [_array(pixels), np.array(classes, np.uint8)]


@dataclass(eq=False)
class _Call:
    """What a pickle would call, with which arguments, and the state that it would set."""

    name: Any
    arguments: Any
    state: Any = field(default=None)


@dataclass(frozen=True)
class _Name:
    name: str


def parse(data: bytes) -> Any:
    """Return the values of a pickle; calls stay names with arguments.

    Raises:
        ValueError: it is damaged, or has names or instructions that arrays in pickles do not have.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for count, (operation, given, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            argument: Any = given
            if count > _MOST_STEPS:
                raise ValueError("its pickle has too many instructions")
            name = operation.name
            if name == "STOP":
                return stack.pop()
            if name in _VALUES:
                stack.append(argument)
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_named(argument))
            elif name in _STEPS:
                _STEPS[name](stack)
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"its pickle has the instruction {name}, which no batch has")
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its pickle is damaged") from error
    raise ValueError("its pickle has no end")


_TEXTS = {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_VALUES = _TEXTS | _BYTES | {"BININT", "BININT1", "BININT2", "LONG1", "INT"}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}


def _named(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(f"its pickle would call {name.replace(' ', '.')[:60]}, which is refused")
    return _Name(name)


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    last = len(stack) - 1
    while stack[last] is not _MARK:
        last -= 1
        if last < 0:
            raise IndexError
    items = stack[last + 1 :]
    del stack[last:]
    return items


def _call(stack: list[Any]) -> None:
    arguments, name = stack.pop(), stack.pop()
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise TypeError
    if name.name == _ENCODE:  # how Python 3 writes bytes for Python 2
        stack.append(arguments[0].encode("latin-1"))
    else:
        stack.append(_Call(name, arguments))


def _state(stack: list[Any]) -> None:
    state, call = stack.pop(), stack[-1]
    if not isinstance(call, _Call):
        raise TypeError
    call.state = state


def _append(stack: list[Any]) -> None:
    item = stack.pop()
    _list(stack[-1]).append(item)


def _appends(stack: list[Any]) -> None:
    items = _pop_to_mark(stack)
    _list(stack[-1]).extend(items)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _items(stack: list[Any], pairs: list[Any]) -> None:
    if len(pairs) % 2 or not isinstance(stack[-1], dict):
        raise TypeError
    stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))


def _item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    _items(stack, [key, value])


def _global(stack: list[Any]) -> None:
    name, module = stack.pop(), stack.pop()
    stack.append(_named(f"{module} {name}"))


def _tuple(count: int) -> Callable[[list[Any]], None]:
    def step(stack: list[Any]) -> None:
        items = tuple(stack.pop() for _ in range(count))[::-1]
        stack.append(items)

    return step


_STEPS: dict[str, Callable[[list[Any]], None]] = {
    "REDUCE": _call,
    "BUILD": _state,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _item,
    "SETITEMS": lambda stack: _items(stack, _pop_to_mark(stack)),
    "STACK_GLOBAL": _global,
    "TUPLE": lambda stack: stack.append(tuple(_pop_to_mark(stack))),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
}


def _array(value: Any) -> NDArray[np.uint8]:
    """Return the array of bytes that a pickle describes.

    Raises:
        ValueError: it describes another thing.
    """
    try:
        _, shape, kind, transposed, content = value.state
        if kind.arguments[0] not in ("u1", b"u1") or transposed:
            raise TypeError
        return np.frombuffer(_as_bytes(content), np.uint8).reshape(shape)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise ValueError("its data are no array of bytes") from error


def _as_bytes(value: Any) -> bytes:
    """Return bytes, also those that are a text in Python 2."""
    return value.encode("latin-1") if isinstance(value, str) else bytes(memoryview(value))
