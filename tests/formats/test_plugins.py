"""A format from another package: a row under the entry-point group ``normsniff.formats``, and a module with `read`."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from normsniff import sniff
from normsniff.errors import FormatError
from normsniff.formats import plugged_in
from tests.helpers.manifest import ROOT

DOCS = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
READER = next(block for block in DOCS.split("```python\n") if block.startswith("import hashlib")).partition("```")[0]
ZIPPED = """
import toy_reader
from normsniff.formats import Format, archives

FORMAT = Format("Toy", lambda prefix, size: False, "toy_archive", lambda names: "toy.bin" in names)


def read(source, limits):
    member = archives.directory(source, limits)["toy.bin"]
    return toy_reader.read(archives.member(source, member, limits, limits.tensor_bytes), limits)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for packages that is searched for entry points."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    plugged_in.cache_clear()
    yield folder
    plugged_in.cache_clear()
    for name in ("toy_reader", "toy_archive"):
        sys.modules.pop(name, None)


def install(site: Path, value: str) -> None:
    info = site / "toy_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[normsniff.formats]\ntoy = {value}\n")
    (site / "toy_reader.py").write_text(READER)
    (site / "toy_archive.py").write_text(ZIPPED)


def toy_file(path: Path, bias: bool) -> Path:
    tensors: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (96, 64)}
    for layer in range(2):
        for leaf in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"layers.{layer}.{leaf}.weight"] = (64,)
            if bias:
                tensors[f"layers.{layer}.{leaf}.bias"] = (64,)
        tensors[f"layers.{layer}.mlp.down_proj.weight"] = (64, 128)
    entries = [
        name.encode().ljust(56, b"\0") + b"".join(n.to_bytes(4, "little") for n in (*shape, 0)[:2])
        for name, shape in tensors.items()
    ]
    sizes = [4 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in tensors.values()]
    path.write_bytes(b"TOY1" + len(entries).to_bytes(4, "little") + b"".join(entries) + bytes(sum(sizes)))
    return path


@pytest.mark.parametrize(("bias", "label"), [(True, "LayerNorm"), (False, "RMSNorm")])
def test_a_format_of_another_package_is_read(site: Path, tmp_path: Path, bias: bool, label: str) -> None:
    path = toy_file(tmp_path / "model.toy", bias)
    with pytest.raises(FormatError, match="not a format"):
        sniff(path)
    install(site, "toy_reader:FORMAT")
    plugged_in.cache_clear()
    record = sniff(path)
    assert (record.format, record.label, record.tensors) == ("Toy", label, 11 if bias else 7)


def test_a_zip_archive_of_another_package_is_told_by_its_members(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.toys"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.txt", "toys")
        archive.write(toy_file(tmp_path / "model.toy", bias=True), "toy.bin")
    with pytest.raises(FormatError, match="zip archive that holds no model"):
        sniff(path)
    install(site, "toy_archive:FORMAT")
    plugged_in.cache_clear()
    assert (sniff(path).format, sniff(path).label) == ("Toy", "LayerNorm")


def test_packages_are_not_searched_for_formats_of_our_own(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "toy_reader:FORMAT")
    sniff(ROOT / "fixtures" / "llama-rms.bf16.safetensors")
    assert plugged_in.cache_info().currsize == 0
    assert "toy_reader" not in sys.modules


@pytest.mark.parametrize("value", ["toy_reader:read", "toy_reader:ABSENT", "no_such_module:FORMAT"])
def test_a_broken_plug_in_is_named(site: Path, tmp_path: Path, value: str) -> None:
    install(site, value)
    with pytest.raises(FormatError, match="plug-in toy"):
        sniff(toy_file(tmp_path / "model.toy", bias=False))
