from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import decode, sniff
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, NormsniffError
from normsniff.formats import explain_unknown, read_checkpoint, recognise
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from tests.helpers.ggml_files import whisper

SMALL = {"ln.weight": np.arange(4, dtype=np.float32), "w": np.arange(12, dtype=np.float32).reshape(3, 4)}


def gguf_file(path: Path) -> bytes:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for name, array in SMALL.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def torch_file(**arrays: np.ndarray[Any, Any]) -> bytes:
    torch = pytest.importorskip("torch")
    out = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out)
    return out.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


APE = b"MZqFpD='\n" + bytes(5000)


def program(files: dict[str, bytes], how: int = zipfile.ZIP_STORED, start: bytes = APE) -> bytes:
    """As llamafile: a program, and a zip archive appended to it."""
    out = io.BytesIO()
    out.write(start)
    with zipfile.ZipFile(out, "a", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def read(data: bytes) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m"), Limits())


def check(checkpoint: Checkpoint) -> None:
    assert list(checkpoint.tensors) == list(SMALL)
    for name, array in SMALL.items():
        np.testing.assert_array_equal(decode.read(checkpoint.tensors[name], Limits()), array)


@pytest.mark.parametrize("start", [APE, b"\x7fELF" + bytes(100)])
def test_a_llamafile(tmp_path: Path, start: bytes) -> None:
    inner = gguf_file(tmp_path / "m.gguf")
    checkpoint = read(program({".args": b"-m\nm.gguf\n", "bin/tool": bytes(99), "models/m.gguf": inner}, start=start))
    assert (checkpoint.format, checkpoint.warnings) == ("GGUF", ())
    check(checkpoint)


def test_a_llamafile_with_a_tower_beside_the_model(tmp_path: Path) -> None:
    inner = gguf_file(tmp_path / "m.gguf")
    checkpoint = read(program({"m.gguf": inner + bytes(500), "mmproj.gguf": inner}))
    assert checkpoint.warnings == ("the largest of 2 models in this file, which stands for it: m.gguf, mmproj.gguf",)


def test_a_compressed_model_in_a_program_is_not_inflated(tmp_path: Path) -> None:
    data = program({"m.gguf": gguf_file(tmp_path / "m.gguf")}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="uncompressed in a zip archive at its end") as caught:
        read(data)
    assert caught.value.code == "unsupported"


CONFIG = b"""\
target: nemo.collections.nlp.models.MegatronGPTModel
encoder:
  layers: 2
normalization: rmsnorm
"""


def test_a_nemo_archive() -> None:
    data = tar({"./model_config.yaml": CONFIG, "./model_weights.ckpt": torch_file(**SMALL), "./vocab.txt": b"a\nb\n"})
    source = BytesSource(data, "m.nemo")
    checkpoint = read_checkpoint(source, Limits())
    assert (checkpoint.format, checkpoint.sources, checkpoint.file_size) == ("PyTorch", (source,), len(data))
    assert checkpoint.metadata["settings"]["normalization"] == "rmsnorm"
    check(checkpoint)


def test_settings_of_a_nemo_archive_are_evidence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"embedding.weight": rng.random((300, 32), dtype=np.float32)}
    for i in range(3):
        arrays |= {f"layers.{i}.{name}.weight": rng.random((32, 32), dtype=np.float32) for name in ("qkv", "dense")}
        arrays[f"layers.{i}.input_layernorm.weight"] = 1 + rng.random(32, dtype=np.float32)
    config, path = CONFIG.replace(b"rmsnorm", b"layernorm1p"), tmp_path / "m.nemo"
    path.write_bytes(tar({"model_config.yaml": config, "model_weights.ckpt": torch_file(**arrays)}))
    (declared,) = (one for one in sniff(path).evidence if one.kind == "declared")
    assert (declared.label, "normalization" in declared.reason) == ("LayerNorm", True)


def test_parts_of_one_model_in_an_archive() -> None:
    names = [f"tp_rank_0{i}_pp_rank_000/model_weights.ckpt" for i in (1, 0)]
    checkpoint = read(tar({name: torch_file(**SMALL) for name in names}))
    (note,) = checkpoint.warnings
    assert note.startswith("one of 2 parts of a model in this file: the others are not read: tp_rank_01")
    check(checkpoint)


def test_other_formats_in_an_archive_and_several_models() -> None:
    data = whisper(SMALL)
    assert read(tar({"a.ggml": data, "readme.txt": data})).format == "ggml"
    with pytest.raises(FormatError, match=r"it holds 2 models; unpack it and name one of them: a\.ggml, b\.ggml"):
        read(tar({"a.ggml": data, "b.ggml": data}))
    with pytest.raises(FormatError, match="no model lies in it"):
        read(tar({"a.txt": data, "b.bin": bytes(999)}))
    with pytest.raises(FormatError, match="no model lies in it"):  # an archive in an archive is not opened
        read(tar({"a.nemo": tar({"a.ggml": data})}))


def test_a_cut_off_archive_is_said_to_be_one() -> None:
    data = tar({"a.ggml": whisper(SMALL)})
    source = BytesSource(data[:3000], "m.nemo")
    assert recognise(source, Limits()) is None
    assert "bytes of a.ggml are missing" in explain_unknown(source, Limits()).reason
    with pytest.raises(FormatError, match=r"bytes of a\.ggml are missing"):
        read_checkpoint(source, Limits())


def test_directories_of_them_are_searched(tmp_path: Path) -> None:
    data = whisper(SMALL)
    (tmp_path / "a.nemo").write_bytes(tar({"m.ggml": data}))
    (tmp_path / "b.llamafile").write_bytes(program({"m.ggml": data}))
    (tmp_path / "c.tar").write_bytes(tar({"m.txt": data}))
    found = survey(tmp_path)
    assert [(one.path.name, one.format) for one in found.inputs] == [("a.nemo", "ggml"), ("b.llamafile", "ggml")]
    assert [path.name for path, _ in found.skipped] == ["c.tar"]


TAR, PROGRAM = tar({"c.yaml": CONFIG, "m.ggml": whisper(SMALL, words=5)}), program({"m.ggml": whisper(SMALL, words=5)})


@given(data=st.sampled_from([TAR, PROGRAM]), at=st.floats(0, 0.999), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=100, deadline=None)
def test_damage_is_survived(data: bytes, at: float, value: int, cut: bool) -> None:
    damaged, i = bytearray(data), int(at * len(data))
    damaged[i] = value
    with contextlib.suppress(NormsniffError):
        for one in read(bytes(damaged[:i] if cut else damaged)).tensors.values():
            decode.read(one, Limits())
