from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.errors import BudgetSpent, FormatError, LimitExceeded, NormsniffError
from normsniff.formats.tar import Member, members
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.source.local import BytesSource


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, fields: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.pax_headers = fields or {}
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = {"./config.yaml": b"a: 1", "b" * 90 + "/" + "c" * 80: b"x" * 513, "d" * 300: b"", "é": b"last"}
FORMS = {"pax": tarfile.PAX_FORMAT, "GNU": tarfile.GNU_FORMAT}


@pytest.mark.parametrize("form", FORMS)
def test_names_and_places_are_those_of_the_standard_library(form: str) -> None:
    data = tar(FILES, FORMS[form])
    found = members(BytesSource(data), Limits())
    assert {one.name: data[one.start : one.start + one.size] for one in found} == {
        name.removeprefix("./"): content for name, content in FILES.items()
    }


def test_posix_prefixes_of_names() -> None:
    name = "a" * 100 + "/" + "b" * 90
    assert [one.name for one in members(BytesSource(tar({name: b"x"}, tarfile.USTAR_FORMAT)), Limits())] == [name]


def test_only_headers_are_read() -> None:
    source = BytesSource(tar({"big": bytes(1 << 20)}))
    assert members(source, Limits()) == [Member("big", 1024, 1 << 20)]
    assert source.bytes_read < 3000


def test_links_and_folders_are_no_members() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("x")
            info.type, info.linkname = kind, "../../etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("y"))
    assert [one.name for one in members(BytesSource(out.getvalue()), Limits())] == ["y"]


def header(size: bytes = b"00000000005\0", kind: bytes = b"0") -> bytearray:
    """A header whose checksum is right."""
    block = bytearray(512)
    block[:1], block[124:136], block[156:157], block[257:265] = b"x", size, kind, b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


REFUSED: list[tuple[str, bytes, str]] = [
    ("a checksum that is wrong", bytes(header()[:300]) + b"\1" + bytes(header()[301:]), "bad-header"),
    ("a member beyond the end", bytes(header(b"00077777777\0")) + bytes(512), "truncated"),
    ("a size of 2^88", bytes(header(b"\x80" + b"\xff" * 11)) + bytes(512), "truncated"),
    ("a negative size", bytes(header(b"\xff" * 12)) + bytes(512), "bad-header"),
    ("a size in letters", bytes(header(b"0000000000z\0")) + bytes(512), "bad-header"),
    ("a long name beyond the end", bytes(header(b"00000100000\0", b"L")) + bytes(512), "truncated"),
    ("a long name of 8 MB", bytes(header(b"00040000000\0", b"L")) + bytes(1 << 12), "too long"),
    ("extended headers that do not add up", bytes(header(kind=b"x")) + b"99 a=" + bytes(507), "bad-header"),
    ("a sparse file", bytes(header(kind=b"S")) + bytes(512), "unsupported"),
    ("a sparse file in pax", tar({"x": b""}, fields={"GNU.sparse.major": "1"}), "unsupported"),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_archives_are_refused(data: bytes, code: str) -> None:
    with pytest.raises((FormatError, LimitExceeded)) as caught:
        members(BytesSource(data), Limits())
    assert getattr(caught.value, "code", "too long") == code


def test_limits() -> None:
    data = tar({f"{i}": b"" for i in range(50)})
    assert len(members(BytesSource(data), Limits(files=51))) == 50
    with pytest.raises(LimitExceeded):
        members(BytesSource(data), Limits(files=50))
    with metered("m", Limits(steps=1000)), pytest.raises(BudgetSpent):
        members(BytesSource(data), Limits())


SMALL = tar({"a" * 120: b"x" * 600, "b": b""})


@given(at=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=100, deadline=None)
def test_damage_is_survived(at: int, value: int, cut: bool) -> None:
    data = bytearray(SMALL)
    data[at] = value
    with contextlib.suppress(NormsniffError):
        for one in members(BytesSource(bytes(data[:at] if cut else data)), Limits()):
            assert 0 <= one.start <= one.start + one.size <= len(data)
