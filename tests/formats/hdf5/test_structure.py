"""Hostile HDF5 structure: what killed libhdf5, or made it loop or swell, ends in an answer or our error, soon."""

from __future__ import annotations

import contextlib
import itertools
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.errors import BudgetSpent, FormatError, LimitExceeded, NormsniffError
from normsniff.formats.hdf5.file import Structure
from normsniff.formats.keras.hdf5 import Listing, list_members
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers import hdf5_files
from tests.helpers.manifest import FIXTURES

ONES = np.ones(8, "<f4")
SEEDS = hdf5_files.seeds()


def members(data: bytes) -> Listing:
    return list_members(BytesSource(data, "model"), Limits())


def steps(data: bytes) -> tuple[int, BaseException | None]:
    """Read everything; return how many functions were called, and our error if there was one."""
    count, failure = 0, None

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        for tensor in itertools.islice(members(data).tensors.values(), 40):
            if decode.is_decodable(tensor.dtype) and tensor.size < 10_000:
                with contextlib.suppress(NormsniffError), np.errstate(all="ignore"):
                    decode.read(tensor, Limits())
    except NormsniffError as error:
        failure = error
    finally:
        sys.setprofile(None)
    return count, failure


@cache
def allowed(good: bytes) -> int:
    """A changed file may take twice the calls of the good one (seen: 1.2 times), and an error a few hundred more.

    Or one and a half a byte: where the pages of an index become as small as they can, there is one in twelve bytes.
    """
    return max(2 * steps(good)[0] + 500, 3 * len(good) // 2)


@pytest.mark.parametrize("words", [words for words in SEEDS if "2 layers" in words])
def test_every_address_that_leads_elsewhere(words: str) -> None:
    """Cycles of headers, trees and heaps; nodes of one kind where another belongs; addresses beyond the end."""
    data = SEEDS[words]
    changes = list(hdf5_files.every_change(data))
    answers = [steps(change) for change in changes[:: max(len(changes) // 120, 1)]]
    assert max(count for count, _ in answers) < allowed(data)
    assert any(error is None for _, error in answers)
    assert any(isinstance(error, FormatError) for _, error in answers)


@pytest.mark.parametrize("words", SEEDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_change_of_structure_ends_in_an_answer_or_our_error(words: str, seed: int) -> None:
    data = hdf5_files.changed(Random(seed), SEEDS[words])  # noqa: S311  (repeatable on purpose)
    count, _ = steps(data)
    assert count < allowed(SEEDS[words])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.h5")), ids=lambda path: path.name)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_change_of_a_real_file_ends(path: Path, seed: int) -> None:
    good = path.read_bytes()
    data = hdf5_files.changed(Random(seed), good)  # noqa: S311  (repeatable on purpose)
    assert steps(data)[0] < allowed(good)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), start=st.sampled_from([0, 512]))
def test_noise_behind_a_signature_ends(data: bytes, start: int) -> None:
    with contextlib.suppress(NormsniffError):
        members(bytes(start) + b"\x89HDF\r\n\x1a\n" + data)


@pytest.mark.parametrize("words", ["earliest, 2 layers", "latest, 2 layers"])
def test_every_truncation_says_that_the_file_is_cut_off(words: str) -> None:
    data = SEEDS[words]
    for size in range(100, len(data), 997):
        with pytest.raises(FormatError, match="truncated"):
            members(data[:size])


def test_work_is_charged_to_the_budget_of_the_answer() -> None:
    data = SEEDS["earliest, 18 layers"]
    with metered("model", Limits()) as whole:
        members(data)
    assert 1_000 < whole.steps < 100_000
    with metered("model", Limits(steps=whole.steps - 1)), pytest.raises(BudgetSpent, match="structure of an HDF5 file"):
        members(data)


def test_a_chunk_that_is_decoded_again_and_again_is_charged() -> None:
    """Every chunk is the same 4 kB, which inflate to 4 MB."""
    plan = {"chunks": (1 << 20,), "compression": "gzip"}
    data = hdf5_files.write(lambda file: file.create_dataset("x", data=np.zeros(1 << 22, "<f4"), **plan))
    tensor = members(data).tensors["x"]
    assert not isinstance(tensor.storage, Extent)
    first = slice(0, 1)
    with metered("model", Limits(steps=100_000)), pytest.raises(BudgetSpent, match="chunks"):
        _ = [tensor.storage.read((first,)) for _ in range(100)]


def with_address(data: bytes, at: int, target: int) -> bytes:
    return data[:at] + struct.pack("<Q", target) + data[at + 8 :]


def test_a_tree_that_holds_itself_is_a_cycle() -> None:
    """A group of 700 members has a tree of two levels."""

    def fill(file: h5py.File) -> None:
        for i in range(700):
            file[f"x{i}"] = np.int8(i % 100)

    data = hdf5_files.write(fill, libver="earliest")
    root = data.find(b"TREE\0\1")
    assert root > 0
    child = int.from_bytes(data[root + 32 : root + 40], "little")
    for at, target in ((root + 32, root), (root + 48, child)):
        with pytest.raises(FormatError, match="cycle"):
            members(with_address(data, at, target))
    with pytest.raises(FormatError, match="bad-tree"):  # a child of the level of its parent
        members(data[: child + 5] + b"\1" + data[child + 6 :])


def test_a_header_that_continues_in_itself_is_an_error() -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = ONES
        for i in range(8):
            file.attrs[f"a{i}"] = "b" * 100

    data = hdf5_files.write(fill, libver="earliest")
    root = Structure(BytesSource(data)).root
    at = data.find(b"\x10\0\x10\0\0\0\0\0", root)  # a continuation of 16 bytes
    with pytest.raises(FormatError, match="continues"):
        members(with_address(data, at + 8, root + 16))


def test_headers_that_are_linked_again_and_again_are_read_once() -> None:
    """Two headers of 60 kB behind 200 links each: of a dataset that is taken, and of one that cannot be."""

    def fill(file: h5py.File) -> None:
        file["good"] = ONES
        for name, value in (("bad", "text"), ("large", ONES)):
            file[name] = value
            for i in range(15):
                file[name].attrs[f"a{i}"] = np.bytes_(b"x" * 4000)
        for i in range(200):
            file[f"large{i}"] = file["large"]

    data = hdf5_files.write(fill)
    assert len(members(data).tensors) == 202

    def more(file: h5py.File) -> None:
        fill(file)
        for i in range(200):
            file[f"bad{i}"] = file["bad"]

    refused = members(hdf5_files.write(more))
    assert len(refused.tensors) == 202
    assert refused.refused == 201


def test_long_paths_of_many_links_are_charged() -> None:
    def fill(file: h5py.File) -> None:
        group = file.create_group("/".join(["n" * 250] * 16))
        group["x"] = ONES
        for i in range(500):
            group[f"x{i}"] = group["x"]

    with pytest.raises(LimitExceeded, match="HDF5 structure"):
        members(hdf5_files.write(fill))


def test_a_damaged_group_is_an_error_and_a_damaged_dataset_a_warning() -> None:
    """Of a group that cannot be listed nobody knows what it held; a dataset has a name."""
    data = hdf5_files.write(lambda file: (file.__setitem__("g/x", ONES), file.__setitem__("g/y", ONES)))
    heap = data.rfind(b"HEAP")
    with pytest.raises(FormatError, match=r"# g @ .*no HEAP"):
        members(data[:heap] + b"PAEH" + data[heap + 4 :])
    at = data.find(b"\x08\0\x18\0")  # the layout of the first dataset
    listing = members(data[: at + 8] + b"\x09" + data[at + 9 :])
    assert list(listing.tensors) == ["g/y"]
    assert "# g/x @" in listing.warnings[0]
    assert "a layout of version 9" in listing.warnings[0]


def test_names_that_no_path_can_hold_are_refused() -> None:
    data = hdf5_files.write(lambda file: (file.__setitem__("ab", ONES), file.__setitem__("cd", ONES)), libver="latest")
    at = data.find(b"\x02ab")
    for name in (b"a/", b"cd"):
        changed = data[: at + 1] + name + data[at + 3 :]
        listing = members(changed)
        assert "cd" in listing.tensors
        assert any("bad-name" in warning for warning in listing.warnings)


def test_unknown_filters_are_named() -> None:
    data = hdf5_files.write(lambda file: file.create_dataset("x", data=np.ones(64), compression="lzf"))
    assert "filter 32000 (lzf)" in members(data).warnings[0]


def test_empty_axes_do_not_hide_impossible_ones() -> None:
    data = hdf5_files.write(lambda file: file.__setitem__("x", np.zeros((0, 77), "<f4")))
    at = data.find(struct.pack("<QQ", 0, 77))
    changed = data[: at + 8] + struct.pack("<Q", 1 << 62) + data[at + 16 :]
    assert "bad-shape" in members(changed).warnings[0]


def test_chunks_that_are_written_in_part_are_missing() -> None:
    def fill(file: h5py.File) -> None:
        grown = file.create_dataset("x", (3000,), "i4", chunks=(1,), maxshape=(None,))
        grown[5], grown[2500:2510] = 7, 1
        file.create_dataset("y", (3000,), "i4", chunks=(1,), maxshape=(4000,))[2000:2003] = 1

    warnings = members(hdf5_files.write(fill, libver="latest")).warnings
    assert "11 sound chunks are stored for a shape that needs 3,000" in warnings[0]
    assert "3 sound chunks are stored for a shape that needs 3,000" in warnings[1]


def test_the_walk_reads_no_values() -> None:
    data = hdf5_files.write(lambda file: file.__setitem__("x", np.ones(1 << 18, "<f4")))
    source = BytesSource(data)
    list_members(source, Limits())
    assert source.bytes_read < 2000


def test_no_library_reads_hdf5() -> None:
    path = FIXTURES / "gpt2-ln.f16.keras"
    code = f"import sys, normsniff; normsniff.sniff({str(path)!r}); sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
