from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import pytest

from normsniff.errors import FormatError
from normsniff.formats import FORMATS, read_checkpoint
from normsniff.formats.refusals import refusal
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model_config.yaml"))
    return file.getvalue()


# a frozen graph: NodeDef {name: "x", op: "Placeholder"}
GRAPH_DEF = b"\x0a\x10\x0a\x01x\x12\x0bPlaceholder" + b"\x0a\x0a\x0a\x01y\x12\x05Const"
CASES = {
    "lora.bin": (b"algg" + bytes(40), "ggla"),
    "spiece.model": (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02" + bytes(40), "SentencePiece vocabulary"),
    "session.bin": (b"nsgg" + bytes(40), "session"),
    "m.mlmodel": (b"\x08\x05\x12\x0a\x0a\x08\x0a\x05image" + bytes(40), "CoreML"),
    "weight.bin": (b"\x03\0\0\0\x02\0\0\0" + bytes(56) + b"\xef\xbe\xad\xde" + bytes(40), "CoreML"),
    "saved_model.pb": (b"\x08\x01\x12\xff\x01\x0a" + bytes(300), "SavedModel"),
    "variables.index": (bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "TensorFlow checkpoint"),
    "frozen.pb": (GRAPH_DEF, "frozen TensorFlow graph"),
    "m.ort": (b"\x18\0\0\0ORTM" + bytes(40), "ORT format"),
    "m.pte": (b"\x18\0\0\0ET12" + bytes(40), "ExecuTorch"),
    "m.engine": (b"ftrt" + bytes(40), "TensorRT"),
    "m.mnn": (b"\x18\0\0\0" + bytes(range(40)), "MNN"),
    "m.param": (b"7767517\n3 3\nInput x 0 1 x\n", "NCNN"),
    "m.pdiparams": (bytes(4) + b"\1" + bytes(40), "PaddlePaddle"),
    "m.joblib": (pickle.dumps({"a": 1}), "pickle"),
    "m.llamafile": (b"MZqFpD='\n" + bytes(40), "executable"),
    "m.so": (b"\x7fELF" + bytes(40), "executable"),
    "m.nemo": (tar(), "no model lies in it"),
    "old.nemo": (gzip.compress(tar()), "compressed tar archive"),
    "m.tar": (tar(), "tar archive"),
    "m.tar.gz": (gzip.compress(tar()), "compressed"),
}


@pytest.mark.parametrize("name", CASES)
def test_recognised_and_explained(tmp_path: Path, name: str) -> None:
    data, what = CASES[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_checkpoint(FileSource(path), Limits())
    assert caught.value.code == "unsupported"
    assert what in caught.value.detail
    assert "is not supported yet, because" in caught.value.detail


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"hello", bytes(range(256)), b"\x0a", b"\x0a\xff\xff\xff\xff\xff"])
def test_others_are_not_refused(data: bytes) -> None:
    assert refusal(BytesSource(data)) is None


def test_no_signature_is_that_of_a_format_that_is_read(tmp_path: Path) -> None:
    for data, _ in CASES.values():
        assert not [row.name for row in FORMATS if row.matches(data[:4096], len(data))]
