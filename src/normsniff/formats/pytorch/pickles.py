"""A pickle, read as data: what it would build is noted down, nothing is imported, called or built.

A pickle is a program for a stack machine. This machine knows the instructions that push numbers, strings and
containers, and turns "call this function" into a note, `Call`, that the reader of a format may understand.
Whatever it does not understand stays a note. So there is no class to find and no function to call, and the cost
is bounded: each instruction pushes one small thing or gathers things that were pushed before, their number is
capped, and lengths that a file claims are checked before they are used.

The instructions are those of PEP 307, 3154 and 574. Their codes are constants of the standard library's module, of
which nothing else is used.
"""

from __future__ import annotations

import pickle as op  # the names of its instructions; nothing is ever unpickled
import struct
from collections.abc import Callable
from typing import Any

from ... import meter
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from .pickle_notes import CONTAINERS, Call, GlobalName, Opaque, Persistent, Pickle, Truncated

_KEPT = 4096  # bytes of a string; longer ones are texts or arrays in disguise, and their length is all we need
_INTEGER_BYTES = 16  # a longer integer is no size, offset or count; Python's own would be slow to print
_LINE = 4096  # of the text instructions of protocol 0
_PROTOCOL = 5


_INT, _DOUBLE = struct.Struct("<i"), struct.Struct(">d")


def load(
    data: bytes | memoryview, limits: Limits, where: Callable[[int], str], *, objects_as_keys: bool = False
) -> Pickle:
    """Run the machine over the first pickle in `data`.

    Args:
        data: bytes that start with a pickle; more may follow it.
        limits: caps; `Limits.tensors` bounds the number of instructions.
        where: words for an offset into `data`.
        objects_as_keys: whether entries of dicts whose keys are objects are kept, too, under the note for the object.

    Raises:
        Truncated: the pickle does not end in `data`.
        FormatError: an unknown instruction, or one that finds the stack empty.
        LimitExceeded: more instructions than a file of `Limits.tensors` tensors may have.
    """
    return _Machine(bytes(data), limits, where, objects_as_keys).run()


class _Machine:
    def __init__(self, data: bytes, limits: Limits, where: Callable[[int], str], objects_as_keys: bool = False) -> None:
        self._data = data
        self._objects_as_keys = objects_as_keys
        self._at = 0
        self._most = 4 * limits.tensors  # PyTorch writes about 33 a tensor, and uploads reach 60,000 tensors
        self._copied = 0
        self._limits = limits
        self._where = where
        self._stack: list[Any] = []
        self._push = self._stack.append
        self._floor = 0  # where the stack begins above the last mark
        self._floors: list[int] = []
        self._memo: dict[int, Any] = {}
        self._names: dict[GlobalName, None] = {}
        self._outside: list[Persistent] = []
        actions: dict[bytes, Callable[[], object]] = {
            op.MARK: self._mark, op.POP: self._discard, op.POP_MARK: self._marked, op.DUP: self._dup,
            op.BINPUT: lambda: self._put(self._byte()), op.LONG_BINPUT: lambda: self._put(self._unsigned(4)),
            op.PUT: lambda: self._put(self._decimal()), op.MEMOIZE: lambda: self._put(len(self._memo)),
            op.BINGET: lambda: self._get(self._byte()), op.LONG_BINGET: lambda: self._get(self._unsigned(4)),
            op.GET: lambda: self._get(self._decimal()), op.EMPTY_DICT: lambda: self._push({}),
            op.EMPTY_LIST: lambda: self._push([]), op.EMPTY_SET: lambda: self._push([]), op.DICT: self._dict,
            op.LIST: self._list, op.TUPLE: self._tuple, op.FROZENSET: self._tuple, op.APPEND: self._append,
            op.APPENDS: self._appends, op.ADDITEMS: self._appends, op.SETITEM: self._setitem,
            op.SETITEMS: self._setitems, op.GLOBAL: self._global, op.STACK_GLOBAL: self._stack_global,
            op.REDUCE: self._reduce, op.NEWOBJ: self._reduce, op.NEWOBJ_EX: self._newobj_ex, op.BUILD: self._build,
            op.BINPERSID: self._persistent, op.PERSID: self._persistent_line, op.INST: self._inst, op.OBJ: self._obj,
            op.BININT: self._binint, op.BINFLOAT: self._binfloat, op.LONG1: lambda: self._long(self._byte()),
            op.LONG4: lambda: self._long(self._signed()), op.INT: self._int_line, op.LONG: self._int_line,
            op.FLOAT: self._float_line, op.STRING: self._text_line, op.UNICODE: self._text_line,
            op.PROTO: self._protocol, op.FRAME: lambda: self._skip(8), op.EXT1: lambda: self._extension(1),
            op.EXT2: lambda: self._extension(2), op.EXT4: lambda: self._extension(4),
            op.NEXT_BUFFER: lambda: self._push(Opaque("buffer", 0)), op.READONLY_BUFFER: lambda: None,
            op.BININT1: lambda: self._push(self._byte()), op.BININT2: lambda: self._push(self._unsigned(2)),
            op.NONE: lambda: self._push(None), op.NEWTRUE: lambda: self._push(True),
            op.NEWFALSE: lambda: self._push(False), op.EMPTY_TUPLE: lambda: self._push(()),
            op.TUPLE1: lambda: self._push(tuple(self._popped(1))),
            op.TUPLE2: lambda: self._push(tuple(self._popped(2))),
            op.TUPLE3: lambda: self._push(tuple(self._popped(3))),
            op.BINUNICODE: lambda: self._text(self._unsigned(4)),
            op.SHORT_BINUNICODE: lambda: self._text(self._byte()),
            op.BINUNICODE8: lambda: self._text(self._unsigned(8)),
            op.SHORT_BINSTRING: lambda: self._text(self._byte()), op.BINSTRING: lambda: self._text(self._signed()),
            op.SHORT_BINBYTES: lambda: self._opaque(self._byte()),
            op.BINBYTES: lambda: self._opaque(self._unsigned(4)),
            op.BINBYTES8: lambda: self._opaque(self._unsigned(8)),
            op.BYTEARRAY8: lambda: self._opaque(self._unsigned(8)),
        }  # fmt: skip
        self._actions = {code[0]: action for code, action in actions.items()}

    def run(self) -> Pickle:
        data, actions, stop = self._data, self._actions, op.STOP[0]
        for _ in meter.counted(range(self._most), "reading the pickle", 2):
            if self._at >= len(data):
                raise Truncated
            code = data[self._at]
            self._at += 1
            if code == stop:
                value = self._pop()
                return Pickle(value, self._at, self._names, self._outside)
            action = actions.get(code)
            if action is None:
                raise self._wrong(f"0x{code:02x} is no instruction of a pickle")
            action()
        raise LimitExceeded(self._where(self._at), "instructions of a pickle", self._most, self._most + 1)

    # --- bytes ------------------------------------------------------------------------------------------------

    def _wrong(self, detail: str) -> FormatError:
        return FormatError("bad-pickle", self._where(max(self._at - 1, 0)), detail)

    def _skip(self, n: int) -> int:
        """Step over `n` bytes and return where they start; a frame's length may also be stepped over so."""
        at = self._at
        if n > len(self._data) - at:
            raise Truncated
        self._at = at + n
        return at

    def _byte(self) -> int:
        try:
            value = self._data[self._at]
        except IndexError:
            raise Truncated from None
        self._at += 1
        return value

    def _unsigned(self, width: int) -> int:
        at = self._skip(width)
        return int.from_bytes(self._data[at : at + width], "little")

    def _signed(self) -> int:
        value: int = _INT.unpack_from(self._data, self._skip(4))[0]
        if value < 0:
            raise self._wrong("a negative length")
        return value

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + _LINE)
        if end < 0:
            if len(self._data) - self._at < _LINE:
                raise Truncated
            raise self._wrong(f"a line of more than {_LINE:,} bytes")
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end + 1
        return text

    def _decimal(self) -> int:
        text = self._line().strip()
        if not (text.isascii() and text.isdecimal() and len(text) <= 10):
            raise self._wrong("a number was expected")
        return int(text)

    # --- the stack --------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        self._floors.append(self._floor)
        self._floor = len(self._stack)

    def _marked(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        meter.hold(8 * (len(self._stack) - self._floor), "reading the pickle")
        if not self._floors:
            raise self._wrong("no mark on the stack")
        taken = self._stack[self._floor :]
        del self._stack[self._floor :]
        self._floor = self._floors.pop()
        return taken

    def _pop(self) -> Any:
        if len(self._stack) <= self._floor:
            raise self._wrong("the stack is empty")
        return self._stack.pop()

    def _popped(self, n: int) -> list[Any]:
        if len(self._stack) - n < self._floor:
            raise self._wrong("the stack is empty")
        taken = self._stack[-n:]
        del self._stack[-n:]
        return taken

    def _top(self) -> Any:
        if len(self._stack) <= self._floor:
            raise self._wrong("the stack is empty")
        return self._stack[-1]

    def _discard(self) -> None:
        if len(self._stack) == self._floor and self._floors:
            self._marked()  # only the mark is there
        else:
            self._pop()

    def _dup(self) -> None:
        self._push(self._top())

    def _put(self, key: int) -> None:
        self._memo[key] = self._top()

    def _get(self, key: int) -> None:
        if key not in self._memo:
            raise self._wrong(f"memo {key} was never set")
        self._push(self._memo[key])

    # --- scalars ----------------------------------------------------------------------------------------------

    def _text(self, n: int) -> None:
        at = self._skip(n)
        if n > _KEPT:
            self._push(Opaque("text", n))
        else:
            self._push(self._data[at : at + n].decode("utf-8", "replace"))

    def _opaque(self, n: int) -> None:
        self._skip(n)
        self._push(Opaque("bytes", n))

    def _binint(self) -> None:
        self._push(_INT.unpack_from(self._data, self._skip(4))[0])

    def _binfloat(self) -> None:
        self._push(_DOUBLE.unpack_from(self._data, self._skip(8))[0])

    def _long(self, n: int) -> None:
        at = self._skip(n)
        if n > _INTEGER_BYTES:
            self._push(Opaque("integer", n))
        else:
            self._push(int.from_bytes(self._data[at : at + n], "little", signed=True))

    def _int_line(self) -> None:
        text = self._line().strip().removesuffix("L")
        if text in ("00", "01"):
            self._push(text == "01")
        elif text.isascii() and text.removeprefix("-").isdecimal():
            self._push(int(text) if len(text) <= 2 * _INTEGER_BYTES else Opaque("integer", len(text)))
        else:
            raise self._wrong("an integer was expected")

    def _float_line(self) -> None:
        try:
            self._push(float(self._line()))
        except ValueError as error:
            raise self._wrong("a float was expected") from error

    def _text_line(self) -> None:
        text = self._line()
        self._push(text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[:1] else text)

    def _protocol(self) -> None:
        version = self._byte()
        if version > _PROTOCOL:
            raise self._wrong(f"pickle protocol {version}")

    def _extension(self, width: int) -> None:
        self._push(self._asked("copyreg", f"extension {self._unsigned(width)}"))

    # --- containers -------------------------------------------------------------------------------------------

    def _tuple(self) -> None:
        self._push(tuple(self._marked()))

    def _list(self) -> None:
        self._push(self._marked())

    def _dict(self) -> None:
        entries: dict[str, Any] = {}
        self._fill(entries, self._marked())
        self._push(entries)

    def _append(self) -> None:
        value, target = self._pop(), self._top()
        if isinstance(target, list):
            target.append(value)

    def _appends(self) -> None:
        values, target = self._marked(), self._top()
        if isinstance(target, list):
            target.extend(values)

    def _setitem(self) -> None:
        pair = self._popped(2)
        self._fill(self._top(), pair)

    def _setitems(self) -> None:
        values = self._marked()
        self._fill(self._top(), values)

    def _fill(self, target: Any, values: list[Any]) -> None:
        """Put keys and values into a dict, or into the state of an object that acts as one."""
        if len(values) % 2:
            raise self._wrong("a key without a value")
        if isinstance(target, Call):
            if not isinstance(target.state, dict):
                target.state = {}
            target = target.state
        if not isinstance(target, dict):
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Text hashes at random, so no file can choose keys that collide; other keys name nothing.
            if isinstance(key, str | int | float):
                target[str(key)] = value
            elif isinstance(key, Opaque) and key.what == "text":  # too long to be kept; what it names is not
                target[f"(a name of {key.size:,} bytes, the {len(target)}th)"] = value
            elif self._objects_as_keys and isinstance(key, Call):
                target[key] = value  # told apart by where it is in memory, which no file chooses either

    # --- what would be code -----------------------------------------------------------------------------------

    def _asked(self, module: object, name: object) -> GlobalName:
        asked = GlobalName(str(module)[:200], str(name)[:200])
        self._names[asked] = None
        if len(self._names) > self._limits.metadata_keys:
            raise LimitExceeded(
                self._where(self._at), "names in a pickle", self._limits.metadata_keys, len(self._names)
            )
        return asked

    def _global(self) -> None:
        module = self._line()
        self._push(self._asked(module, self._line()))

    def _stack_global(self) -> None:
        module, name = self._popped(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._wrong("a name that is no text")
        self._push(self._asked(module, name))

    def _reduce(self) -> None:
        function, arguments = self._popped(2)
        self._push(self._called(function, arguments))

    def _newobj_ex(self) -> None:
        kind, arguments, _ = self._popped(3)
        self._push(self._called(kind, arguments))

    def _inst(self) -> None:
        module = self._line()
        kind = self._asked(module, self._line())
        self._push(self._called(kind, tuple(self._marked())))

    def _obj(self) -> None:
        values = self._marked()
        if not values:
            raise self._wrong("an object without a class")
        self._push(self._called(values[0], tuple(values[1:])))

    def _build(self) -> None:
        target, state = self._popped(2)
        if isinstance(target, Call):
            target.state = state
        self._push(target)

    def _persistent(self) -> None:
        self._outside.append(Persistent(self._pop()))
        self._push(self._outside[-1])

    def _persistent_line(self) -> None:
        self._outside.append(Persistent(self._line()))
        self._push(self._outside[-1])

    def _called(self, function: object, arguments: object) -> object:
        """Note a call down; containers of the standard library are the only ones that are made."""
        kind = CONTAINERS.get((function.module, function.name)) if isinstance(function, GlobalName) else None
        if kind is None:
            return Call(function, arguments)
        given = arguments[-1] if isinstance(arguments, tuple) and arguments else None
        if kind is list:
            return (
                given if isinstance(given, list | tuple) else []
            )  # shared, not copied: a file may ask a million times
        entries: dict[str, Any] = {}
        if isinstance(given, list | tuple):  # OrderedDict([[key, value], ...]), as Python 2 wrote it
            self._copied += len(given)
            meter.charge(2 * len(given), "copying items of a pickle")
            meter.hold(100 * len(given), "copying items of a pickle")
            if self._copied > self._most:
                raise LimitExceeded(self._where(self._at), "items of a pickle", self._most, self._copied)
            for pair in given:
                if isinstance(pair, list | tuple) and len(pair) == 2:
                    self._fill(entries, [*pair])
        return entries
