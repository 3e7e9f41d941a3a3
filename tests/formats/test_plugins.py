"""A format from another package: a row under the entry-point group ``normsniff.formats``, and a module with `read`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from normsniff import sniff
from normsniff.errors import FormatError
from normsniff.formats import plugged_in

# As in docs/extending.md.
READER = """
import hashlib

from normsniff.errors import FormatError
from normsniff.formats import Format
from normsniff.formats.checkpoint import Checkpoint, Extent, TensorInfo

FORMAT = Format("Toy", lambda prefix, size: prefix[:4] == b"TOY1", "toy_reader")


def read(source, limits):
    n = min(int.from_bytes(source.read_at(4, 4), "little"), limits.tensors)
    at = 8 + 64 * n
    tensors = {}
    for row in range(n):
        entry = bytes(source.read_at(8 + 64 * row, 64))
        name = entry[:56].rstrip(b"\\0").decode()
        shape = tuple(x for x in (int.from_bytes(entry[56:60], "little"), int.from_bytes(entry[60:], "little")) if x)
        end = at + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if end > source.size:
            raise FormatError("truncated", f"{source.name} @ {at}", f"{name} ends after the file does")
        tensors[name] = TensorInfo(name, "F32", shape, Extent(source, at, end))
        at = end
    digest = hashlib.sha256(source.read_at(0, 8 + 64 * n)).hexdigest()
    return Checkpoint("Toy", "1", tensors, (source,), digest)
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
    sys.modules.pop("toy_reader", None)


def install(site: Path, value: str) -> None:
    info = site / "toy_reader-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[normsniff.formats]\ntoy = {value}\n")
    (site / "toy_reader.py").write_text(READER)


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


def test_packages_are_not_searched_for_formats_of_our_own(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "toy_reader:FORMAT")
    sniff(Path(__file__).parents[2] / "fixtures" / "llama-rms.bf16.safetensors")
    assert plugged_in.cache_info().currsize == 0
    assert "toy_reader" not in sys.modules


@pytest.mark.parametrize("value", ["toy_reader:read", "toy_reader:ABSENT", "no_such_module:FORMAT"])
def test_a_broken_plug_in_is_named(site: Path, tmp_path: Path, value: str) -> None:
    install(site, value)
    with pytest.raises(FormatError, match="plug-in toy"):
        sniff(toy_file(tmp_path / "model.toy", bias=False))
