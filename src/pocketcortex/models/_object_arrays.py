"""Read lists of plain arrays that NumPy saved as pickled objects, without unpickling anything.

A pickle is a program. This runs none: the few instructions that NumPy writes for an object array of
float arrays are followed on a list of plain values, and any other one is refused, so that no
function is ever called that the file names, not even NumPy's.
"""

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketcortex.core import InputError

_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
}
_PLAIN = frozenset({
    "BININT", "BININT1", "BININT2", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BINUNICODE",
    "SHORT_BINUNICODE",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_MAX_AXES = 8
_MAX_HEADER = 1024
_MAX_INSTRUCTIONS = 20_000


@dataclass(frozen=True)
class _Name:
    """What a file may name."""

    name: str


@dataclass
class _Made:
    """An array or a type of numbers in the making."""

    kind: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = ()


def read_object_array(path: Path, n: int) -> list[np.ndarray]:
    """Return the `n` float arrays of a `.npy` file that `numpy.save` wrote of an object array.

    Raises
    ------
    InputError
        If it holds anything else.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise InputError(f"npy version {version} where 1.0 is expected")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file, _MAX_HEADER)
        if shape != (n,) or dtype != np.dtype(object):
            raise InputError(f"holds {dtype} {shape}, expected an object array ({n},)")
        content = file.read()
    whole = _followed(content)
    if not isinstance(whole, _Made) or whole.kind != "array" or len(whole.state) != 5:
        raise InputError(f"does not hold {n} arrays")
    _, shape, _, _, values = whole.state
    if shape != (n,) or not isinstance(values, list) or len(values) != n:
        raise InputError(f"does not hold {n} arrays")
    return [_array(value) for value in values]


def _followed(content: bytes) -> Any:
    """Return the one value that a pickle's instructions leave, made of plain values alone."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if count > _MAX_INSTRUCTIONS:
            raise InputError(f"pickle has over {_MAX_INSTRUCTIONS:,} instructions")
        if name in _PLAIN:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                argument = " ".join((stack.pop(-2), stack.pop()))
            stack.append(_Name(_admitted(argument)))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name == "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        elif name == "APPENDS":
            values = _since_mark(stack)
            stack[-1].extend(values)
        elif name == "REDUCE":
            arguments, made = stack.pop(), stack.pop()
            stack.append(_Made(_kind_of(made, arguments), arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Made) or stack[-1].state:
                raise InputError("pickle asks for something other than a plain array")
            stack[-1].state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise InputError(f"pickle has the instruction {name}; only arrays are admitted")
    return None


def _admitted(name: str) -> str:
    if name not in _NAMES:
        raise InputError(f"pickle asks for {name.replace(' ', '.')}; only arrays are admitted")
    return _NAMES[name]


def _since_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1 - stack[::-1].index(_MARK)
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _kind_of(made: Any, arguments: Any) -> str:
    plain = isinstance(made, _Name) and isinstance(arguments, tuple) and len(arguments) == 3
    if plain and made.name == "array" and arguments[0] == _Name("ndarray"):
        return "array"
    if plain and made.name == "dtype" and isinstance(arguments[0], str):
        return "dtype"
    raise InputError("pickle asks for something other than a plain array")


def _array(value: Any) -> np.ndarray:
    """Return the array of floats that was described, a copy of its numbers."""
    if not isinstance(value, _Made) or value.kind != "array" or len(value.state) != 5:
        raise InputError("holds something other than arrays of floats")
    _, shape, dtype, fortran, data = value.state
    if (
        not isinstance(dtype, _Made)
        or dtype.kind != "dtype"
        or dtype.arguments[0] not in ("f2", "f4", "f8")
        or len(dtype.state) < 2
        or dtype.state[1] not in ("<", ">", "=")
        or not isinstance(data, bytes)
        or not isinstance(shape, tuple)
        or len(shape) > _MAX_AXES
        or not all(isinstance(n, int) and n >= 0 for n in shape)
    ):
        raise InputError("holds something other than arrays of floats")
    numbers = np.frombuffer(data, np.dtype(dtype.arguments[0]).newbyteorder(dtype.state[1]))
    return numbers.reshape(shape, order="F" if fortran else "C").astype(
        numbers.dtype.newbyteorder("=")
    )
