"""Rows as Parquet, in row groups, so that a table of any length is written in little memory."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import msgspec

from ..errors import MissingExtra
from ..record import Answer
from .row import Row, row_of

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("parquet", "Parquet output") from error

_GROUP_ROWS = 20_000
_GROUP_BYTES = 64_000_000  # of JSON: records of large models have 100 kB


def schema() -> Any:
    """Return the Arrow schema of `Row`; words that recur (labels, formats, versions) are dictionaries."""
    recurring = pa.dictionary(pa.int32(), pa.string())
    columns = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "Literal": recurring}
    words = {"format", "format_version", "architecture", "error_type", "error_code"}
    words |= {"schema_version", "tool_version", "calibration"}
    return pa.schema(
        [
            pa.field(field.name, recurring if field.name in words else columns[_kind(field.type)])
            for field in msgspec.structs.fields(Row)
        ]
    )


def write_parquet(answers: Iterable[Answer], file: BinaryIO, about: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table with one row an answer, and `about` as the table's own metadata."""
    table = schema().with_metadata(dict(about or {}))
    with pq.ParquetWriter(file, table, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for answer in answers:
            row = row_of(answer)
            rows.append(msgspec.structs.asdict(row))
            size += len(row.record)
            if len(rows) >= _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema=table))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=table))


def _kind(annotation: Any) -> str:
    """Return ``int``, ``float``, ``str`` or ``Literal`` for a type that may also be None."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (annotation,) = (one for one in typing.get_args(annotation) if one is not type(None))
    return "Literal" if typing.get_origin(annotation) is typing.Literal else str(annotation.__name__)
