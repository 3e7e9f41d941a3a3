"""Types and shapes: which of our dtypes a stored type is, if it is one of plain numbers (IV.A.2.b and IV.A.2.d)."""

from __future__ import annotations

import math
from typing import NamedTuple

from .file import Fields

FIXED, FLOAT, STRING, OPAQUE, COMPOUND, ENUM, VARIABLE, COMPLEX = 0, 1, 3, 5, 6, 8, 9, 11
NOT_NUMBERS = (2, STRING, 7, VARIABLE)  # times, texts, references, sequences
_WORDS = (
    "integers", "floats", "times", "texts", "bit fields", "opaque bytes", "compound values", "references",
    "enumerated values", "sequences", "arrays", "complex numbers",
)  # fmt: skip

# (bytes, position of the sign, of the exponent and its bits, of the mantissa and its bits, bias) of floats
_FLOATS = {
    (2, 15, 10, 5, 0, 10, 15): "F16",
    (4, 31, 23, 8, 0, 23, 127): "F32",
    (8, 63, 52, 11, 0, 52, 1023): "F64",
    (2, 15, 7, 8, 0, 7, 127): "BF16",
    (1, 7, 3, 4, 0, 3, 7): "F8_E4M3",
    (1, 7, 2, 5, 0, 2, 15): "F8_E5M2",
}
_COMPLEX = {"F32": "C64", "F64": "C128"}
# names and values of h5py's Booleans, in old and new versions of types
_BOOLEAN = (b"FALSE\0\0\0TRUE\0\0\0\0\0\1", b"FALSE\0TRUE\0\0\1")
_MAX_ELEMENTS = 1 << 59  # numpy counts bytes below 2⁶³, in empty arrays as well; the widest element has 16
_NULL = 2  # kind of a dataspace without elements
_MAX_RANK = 32  # of HDF5


class Datatype(NamedTuple):
    """A stored type.

    Attributes:
        kind: its class.
        size: bytes of an element.
        dtype: a key of our `UNITS`, or None where the type is not one of plain numbers.
        order: ``"<"`` or ``">"``.
        text: whether it is a variable-length text.
        words: what it is, for messages.
    """

    kind: int
    size: int
    dtype: str | None
    order: str
    text: bool
    words: str


def read_datatype(fields: Fields) -> Datatype:
    """Read a datatype message; types inside of it are looked at only where the whole may be numbers."""
    kind, version, bits, size = _head(fields)
    big, dtype = bool(bits & 1), None
    if kind in (FIXED, FLOAT):
        dtype = _number(fields, kind, bits, size)
    elif kind in (ENUM, COMPLEX) and fields.remaining:
        inner, _, inner_bits, inner_size = _head(fields)
        big = bool(inner_bits & 1)
        if kind == ENUM and inner == FIXED and inner_size == size:
            dtype = _number(fields, inner, inner_bits, size)
            if size == 1 and bits & 0xFFFF == 2 and bytes(fields.take(fields.remaining)).startswith(_BOOLEAN):
                dtype = "BOOL"
        elif kind == COMPLEX and inner == FLOAT and 2 * inner_size == size:
            dtype = _COMPLEX.get(_number(fields, inner, inner_bits, inner_size) or "")
    elif kind == COMPOUND and bits & 0xFFFF == 2:
        dtype, big = _pair(fields, version, size)
    words = _WORDS[kind] if kind < len(_WORDS) else f"values of the unknown class {kind}"
    order = ">" if big else "<"
    return Datatype(kind, size, dtype, order, kind == VARIABLE and bits & 15 == 1, f"{words} of {size:,} bytes")


def read_shape(fields: Fields) -> tuple[tuple[int, ...], tuple[int | None, ...]] | None:
    """Read a dataspace message: the shape and how far each axis may grow (None: without end), or None without data.

    Raises:
        FormatError: more axes than HDF5 has, or dimensions that no array has.
    """
    version, rank, flags = fields.number(1), fields.number(1), fields.number(1)
    kind = fields.number(1)
    if version == 1:
        fields.skip(4)
    elif version != 2:
        fields.fail("unsupported", f"a dataspace of version {version}")
    elif kind == _NULL:
        return None
    if rank > _MAX_RANK:
        fields.fail("bad-shape", f"{rank} axes, and HDF5 has {_MAX_RANK} at most")
    shape = tuple(fields.length() for _ in range(rank))
    most = tuple(fields.length_or_none() for _ in range(rank)) if flags & 1 else shape
    if math.prod(n or 1 for n in shape) > _MAX_ELEMENTS:
        fields.fail("bad-shape", "more elements than any array has, were its empty axes of length 1")
    return shape, most


def _head(fields: Fields) -> tuple[int, int, int, int]:
    """Return class, version, bits and size, with which every type starts."""
    first = fields.number(1)
    return first & 15, first >> 4, fields.number(3), fields.number(4)


def _number(fields: Fields, kind: int, bits: int, size: int) -> str | None:
    """Return our name of an integer or a float, or None if it is of no width or layout that we know."""
    lowest, precision = fields.number(2), fields.number(2)
    whole = lowest == 0 and precision == 8 * size
    if kind == FIXED:
        return f"{'I' if bits & 8 else 'U'}{precision}" if whole and size in (1, 2, 4, 8) else None
    exponent, exponent_bits, mantissa, mantissa_bits = (fields.number(1) for _ in range(4))
    layout = (size, bits >> 8 & 0xFF, exponent, exponent_bits, mantissa, mantissa_bits, fields.number(4))
    implied, vax = bits >> 4 & 3 == 2, bool(bits & 0x40)  # the leading one of the mantissa is not stored
    return _FLOATS.get(layout) if whole and implied and not vax else None


def _pair(fields: Fields, version: int, size: int) -> tuple[str | None, bool]:
    """Return our name of a compound that h5py writes for complex numbers (r and i, of one type), and its order."""
    parts: list[tuple[bytes, int, str | None, bool]] = []
    for _ in range(2):
        name = fields.text()
        if version < 3:  # names are padded to multiples of eight, with their zero
            fields.skip(-(len(name) + 1) % 8)
            offset = fields.number(4)
            fields.skip(28 if version == 1 else 0)  # dimensions of an array
        else:
            offset = fields.number(max((size.bit_length() + 7) // 8, 1))
        kind, _, bits, inner = _head(fields)
        if kind != FLOAT:
            return None, False
        parts.append((name, offset, _number(fields, kind, bits, inner), bool(bits & 1)))
    (real, start, dtype, big), (imaginary, middle, other, other_big) = parts
    sound = (real, start, imaginary, middle) == (b"r", 0, b"i", size // 2) and (dtype, big) == (other, other_big)
    return (_COMPLEX.get(dtype or ""), big) if sound else (None, False)
