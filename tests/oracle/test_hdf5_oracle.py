"""Our reading of HDF5 structure against h5py: files of every style it writes, every tensor and text attribute."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff import decode
from normsniff.errors import FormatError
from normsniff.formats.hdf5.attributes import list_texts, read_texts
from normsniff.formats.hdf5.file import Structure
from normsniff.formats.hdf5.groups import is_group, list_links
from normsniff.formats.hdf5.headers import read_header
from normsniff.formats.hdf5.heaps import GlobalHeaps
from normsniff.formats.keras.hdf5 import Listing, list_members
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource
from normsniff.source.views import Extent, SourceFile
from tests.helpers import hdf5_files
from tests.helpers.manifest import FIXTURES

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(37, 29)).astype("<f4")
VERSIONS = hdf5_files.VERSIONS
FILTERS: list[dict[str, Any]] = [
    {},
    {"compression": "gzip"},
    {"fletcher32": True},
    {"shuffle": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
]
CHUNKS: list[tuple[tuple[int, int], Any]] = [  # edges, and how far the dataset may grow: every index of chunks
    ((37, 29), None),  # a single chunk
    ((5, 7), None),
    ((5, 7), (50, 40)),
    ((5, 7), (None, 29)),
    ((5, 7), (37, None)),
    ((5, 7), (None, 60)),
    ((5, 7), (None, None)),
    ((40, 30), (50, 60)),
    ((40, 30), (None, None)),
]
PLAIN = ["<f2", ">f2", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">i2", "<u4", ">u8", "?", "<c8", ">c8", "<c16"]


def members(data: bytes) -> Listing:
    return list_members(BytesSource(data), Limits())


def values(data: bytes, listing: Listing, name: str, like: NDArray[Any]) -> NDArray[Any]:
    tensor = listing.tensors[name]
    if isinstance(tensor.storage, Extent):
        raw = data[tensor.storage.start : tensor.storage.stop]
        return np.frombuffer(raw, like.dtype).reshape(tensor.shape)
    return tensor.storage.read(tuple(slice(0, n) for n in tensor.shape))


def compare(data: bytes) -> int:
    """Compare all datasets of numbers; returns how many."""
    listing = members(data)
    expected: dict[str, Any] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(lambda name, item: expected.update({name: item[()]}) if hasattr(item, "shape") else None)
    assert listing.warnings == []
    assert set(listing.tensors) == set(expected)
    for name, stored in expected.items():
        assert listing.tensors[name].shape == stored.shape
        found = values(data, listing, name, stored)
        np.testing.assert_array_equal(found.view(stored.dtype) if stored.dtype.kind == "V" else found, stored, name)
    return len(expected)


def everything(file: h5py.File) -> None:
    file["contiguous"] = MATRIX
    file["scalar"], file["empty"] = np.float32(3), np.zeros((0, 4), "f4")
    for dtype in PLAIN:
        file[f"plain/{dtype}"] = np.arange(12).reshape(3, 4).astype(dtype)
        file.create_dataset(f"chunked/{dtype}", data=np.arange(12).reshape(3, 4).astype(dtype), chunks=(2, 3))
    file.create_dataset("enumerated", data=np.array([0, 1, 0], "i4"), dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i4"))
    for i, filters in enumerate(FILTERS):
        for k, (edges, most) in enumerate(CHUNKS):
            file.create_dataset(f"c/{i}/{k}", data=MATRIX, chunks=edges, maxshape=most, **filters)
    cube = np.arange(5040.0).reshape(7, 8, 9, 10)
    file.create_dataset("cube", data=cube, chunks=(2, 3, 2, 4), maxshape=(9, None, 11, 12))
    hdf5_files.low_level(file, "implicit", MATRIX, chunk=(4, 5), alloc_time=h5py.h5d.ALLOC_TIME_EARLY, most=(50, 40))
    hdf5_files.low_level(file, "compact", MATRIX.astype(">f4"), layout=h5py.h5d.COMPACT)
    file["named type"] = np.dtype("<f8")
    file.create_dataset("of a named type", data=MATRIX, dtype=file["named type"])
    ordered, plain = file.create_group("ordered", track_order=True), file.create_group("many")
    for i in range(60):
        ordered[f"x{i}"] = np.int32(i)
    for i in range(300):
        plain[f"y{i}" + "z" * (i % 30)] = np.int32(i)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [{}, {"track_order": True}, {"userblock_size": 1024}], ids=str)
def test_every_dataset_of_every_style(version: str, options: dict[str, Any]) -> None:
    assert compare(hdf5_files.write(everything, libver=VERSIONS[version], **options)) > 400


@pytest.mark.parametrize(
    "options", [{"maxshape": (None,)}, {"maxshape": (7000,)}, {"maxshape": (9000,), "compression": 1}]
)
def test_indexes_of_thousands_of_chunks(options: dict[str, Any]) -> None:
    numbers = np.arange(5000, dtype="<i4")
    data = hdf5_files.write(
        lambda file: file.create_dataset("x", data=numbers, chunks=(1,), **options), libver="latest"
    )
    assert compare(data) == 1


def test_a_tree_of_chunks_with_inner_nodes() -> None:
    numbers = np.arange(5000, dtype="<i4").reshape(100, 50)
    data = hdf5_files.write(
        lambda file: file.create_dataset("x", data=numbers, chunks=(1, 1), maxshape=(None, None)), libver="latest"
    )
    assert compare(data) == 1


@pytest.mark.parametrize("size", [2, 4, 8])
def test_addresses_of_other_widths(size: int) -> None:
    plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plan.set_sizes(size, size)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST if size == 2 else h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    opened = h5py.h5f.create(b"in memory", h5py.h5f.ACC_TRUNC, fcpl=plan, fapl=access)
    file = h5py.File(opened)
    file.attrs["keras_version"] = "3.5"
    file["a/b"] = MATRIX
    file.create_dataset("c", data=MATRIX, chunks=(5, 7), compression="gzip")
    file.flush()
    data = opened.get_file_image()
    file.close()
    listing = members(data)
    assert listing.attributes == {"keras_version": "3.5"}
    for name in ("a/b", "c"):
        np.testing.assert_array_equal(values(data, listing, name, MATRIX), MATRIX)


FLOATS = {  # position of the sign, exponent and its bits, mantissa and its bits, bias, bytes
    "BF16": ((15, 7, 8, 0, 7), 127, 2),
    "F8_E4M3": ((7, 3, 4, 0, 3), 7, 1),
    "F8_E5M2": ((7, 2, 5, 0, 2), 15, 1),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("options", [{}, {"chunk": (3,)}, {"layout": h5py.h5d.COMPACT}], ids=str)
def test_short_floats_are_told_by_their_layout(dtype: str, order: str, options: dict[str, Any]) -> None:
    fields, bias, size = FLOATS[dtype]
    kind = (h5py.h5t.IEEE_F32BE if order == ">" else h5py.h5t.IEEE_F32LE).copy()
    kind.set_fields(*fields)
    kind.set_ebias(bias)
    kind.set_precision(8 * size)
    kind.set_size(size)
    numbers = np.array([1.0, -2.0, 0.5, 1.5, 0.0], "<f4")

    def fill(file: h5py.File) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        for setting, value in options.items():
            getattr(plan, f"set_{setting}")(value)
        dataset = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((5,)), plan)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, numbers, h5py.h5t.IEEE_F32LE)

    tensor = members(hdf5_files.write(fill)).tensors["x"]
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(decode.read(tensor, Limits()), numbers)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_layouts_of_old_versions(chunked: bool, version: int) -> None:
    """Libraries before 1.6.3 wrote them; h5py no longer does, so a new one is written again as they had it."""
    numbers = np.arange(6, dtype="<f4")
    data = bytearray(
        hdf5_files.write(lambda file: file.create_dataset("x", data=numbers, chunks=(6,) if chunked else None))
    )
    at = data.find(b"\x03\x02\x02" if chunked else b"\x03\x01", data.find(b"\x08\0\x18\0"))
    address = data[at + 3 : at + 11] if chunked else data[at + 2 : at + 10]
    edges = b"\x06\0\0\0\x04\0\0\0" if chunked else b"\x06\0\0\0"
    old = bytes((version, 2 if chunked else 1, 2 if chunked else 1)) + bytes(5) + bytes(address) + edges
    data[at : at + 24] = old.ljust(24, b"\0")
    assert compare(bytes(data)) == 1


def all_texts(data: bytes) -> dict[tuple[str, str], list[str]]:
    file = Structure(BytesSource(data))
    heaps, pending = GlobalHeaps(file), [(file.root, "")]
    found: dict[tuple[str, str], list[str]] = {}
    while pending:
        address, path = pending.pop()
        header = read_header(file, address)
        for name, text in list_texts(header).items():
            found[path, name] = read_texts(heaps, text, 1 << 20, 1 << 20)
        if is_group(header):
            pending += [
                (link.address, f"{path}/{link.name}") for link in list_links(header) if link.address is not None
            ]
    return found


def their_texts(data: bytes) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}

    def note(path: str, item: Any) -> None:
        for name, value in item.attrs.items():
            if isinstance(value, str | bytes) or (isinstance(value, np.ndarray) and value.dtype.kind in "SO"):
                texts = value.tolist() if isinstance(value, np.ndarray) else [value]
                found[path, name] = [t.decode() if isinstance(t, bytes) else t for t in texts]

    with h5py.File(io.BytesIO(data), "r") as file:
        note("", file)
        file.visititems(lambda name, item: note(f"/{name}", item))
    return found


@pytest.mark.parametrize("words", hdf5_files.seeds())
def test_every_text_attribute(words: str) -> None:
    data = hdf5_files.seeds()[words]
    expected = their_texts(data)
    assert len(expected) > 25
    assert all_texts(data) == expected
    assert compare(data) > 20


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.h5")), ids=lambda path: path.name)
def test_every_text_attribute_of_the_fixtures(path: Path) -> None:
    data = path.read_bytes()
    expected = their_texts(data)
    assert expected
    assert all_texts(data) == expected


def test_kinds_of_types_that_are_refused() -> None:
    def fill(file: h5py.File) -> None:
        odd = h5py.h5t.STD_I32LE.copy()
        odd.set_precision(17)
        hdf5_files.low_level(file, "odd", np.zeros(3, "<i4"), odd)
        file.create_dataset("array", (2,), np.dtype(("<f4", (3,))))
        file["compound"] = np.zeros(2, [("r", "<f4"), ("i", "<f8")])
        file["bits"] = np.zeros(2, "V3")

    listing = members(hdf5_files.write(fill))
    assert not listing.tensors
    assert len(listing.warnings) == 4
    assert all("opaque-dtype" in warning for warning in listing.warnings)


def test_a_file_that_is_cut_off_says_so() -> None:
    data = hdf5_files.write(everything)
    with pytest.raises(FormatError, match="cut off"):
        members(data[:-8])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.h5")), ids=lambda path: path.name)
def test_a_header_takes_fewer_reads_and_bytes_than_the_library(path: Path) -> None:
    def reads(walk: Callable[[FileSource], Any]) -> tuple[int, int]:
        source = FileSource(path)
        calls: list[tuple[int, int]] = []
        inner = source.read_at

        def read_at(offset: int, n: int) -> memoryview:
            calls.append((offset, n))
            return inner(offset, n)

        source.read_at = read_at  # type: ignore[method-assign]
        walk(source)
        return len(calls), source.bytes_read

    places: list[Any] = []

    def theirs(source: FileSource) -> None:
        with h5py.File(SourceFile(source), "r") as file:
            for item in (file, file.get("model_weights")):
                if item is not None:
                    places.extend(item.attrs.get(key) for key in ("model_config", "layer_names", "keras_version"))
            file.visititems(lambda _, item: places.append(item.id.get_offset()) if hasattr(item, "shape") else None)

    our_reads, our_bytes = reads(lambda source: list_members(source, Limits()))
    their_reads, their_bytes = reads(theirs)
    assert our_reads < their_reads
    assert our_bytes < their_bytes
