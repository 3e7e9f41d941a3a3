"""What else people upload: formats that are recognised, and why each is not read yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import NamedTuple

from ..source.local import ByteSource

_PREFIX = 4096
_TAIL = 8


class _Facts(NamedTuple):
    """What the tests below look at: first and last bytes, file name in lower case."""

    prefix: bytes
    tail: bytes
    name: str


class Refusal(NamedTuple):
    """A row of the table.

    Attributes:
        matches: whether a file is of this kind.
        what: what it is.
        because: why it is not read.
        is_model: whether it holds a model for certain, so that a scan says that it was not read.
    """

    matches: Callable[[_Facts], bool]
    what: str
    because: str
    is_model: bool = True

    @property
    def reason(self) -> str:
        """One sentence."""
        return f"{self.what} is not supported yet, because {self.because}"


def _starts(*magics: bytes, at: int = 0) -> Callable[[_Facts], bool]:
    return lambda facts: facts.prefix.startswith(magics, at)


def _ends(*suffixes: str) -> Callable[[_Facts], bool]:
    return lambda facts: facts.name.endswith(suffixes)


def _is_coreml(facts: _Facts) -> bool:
    """A protobuf that starts with a specification version, and says who wrote it."""
    version = facts.prefix[:1] == b"\x08" and facts.prefix[2:3] == b"\x12"
    return version and (facts.name.endswith(".mlmodel") or b"com.github.apple.coremltools" in facts.prefix)


def _is_saved_model(facts: _Facts) -> bool:
    return facts.prefix[:3] == b"\x08\x01\x12" and facts.name.endswith("saved_model.pb")


def _is_graph_def(facts: _Facts) -> bool:
    """A protobuf of nodes: field 1, in it a name (field 1) and the name of an operator (field 2)."""
    data = facts.prefix
    at = next((i for i in range(1, 6) if data[i : i + 1] < b"\x80"), 0) + 1  # over the length of the first node
    if data[:1] != b"\x0a" or data[at : at + 1] != b"\x0a" or len(data) <= at + 1:
        return False
    at += 2 + data[at + 1]
    if data[at : at + 1] != b"\x12" or len(data) <= at + 1:
        return False
    operator = data[at + 2 : at + 2 + data[at + 1]]
    return len(operator) > 2 and operator.isalnum() and operator[:1].isupper()


def _is_pickle(facts: _Facts) -> bool:
    known = (
        b"sklearn" in facts.prefix or b"joblib" in facts.prefix or facts.name.endswith((".joblib", ".pkl", ".pickle"))
    )
    return facts.prefix[:1] == b"\x80" and facts.prefix[1:2] in (b"\2", b"\3", b"\4", b"\5") and known


_NO_READER = "there is no small reader of it that runs no code of the framework"
_UNPACK = "archives are not unpacked; unpack it and name a file or folder inside"
_COMPILED = "it is compiled for one device and its layers are no longer there to be read"
_COREML = "its operators are another protobuf language than ONNX"

TABLE: tuple[Refusal, ...] = (
    Refusal(_starts(b"algg"), "an old llama.cpp adapter (ggla)", "it holds no norm of its own; convert it to GGUF"),
    Refusal(
        _starts(b"nsgg", b"qsgg"),
        "a saved llama.cpp session (ggsn, ggsq)",
        "it holds states of a run, no weights",
        False,
    ),
    Refusal(_is_coreml, "a CoreML model", _COREML),
    Refusal(_starts(b"\xef\xbe\xad\xde", at=64), "the weights of a CoreML package", _COREML),
    Refusal(_is_saved_model, "a TensorFlow SavedModel", f"{_NO_READER}; convert it with tf2onnx or to TensorFlow Lite"),
    Refusal(
        lambda facts: facts.tail == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        "the index of a TensorFlow checkpoint",
        _NO_READER,
    ),
    Refusal(_is_graph_def, "a frozen TensorFlow graph", f"{_NO_READER}; convert it with tf2onnx or to TensorFlow Lite"),
    Refusal(
        _starts(b"ORTM", at=4),
        "a model in ONNX Runtime's own ORT format",
        "only the ONNX file that it was made from has a documented layout",
    ),
    Refusal(_starts(b"ET12", at=4), "an ExecuTorch program", "its weights lie in delegates of their own formats"),
    Refusal(
        lambda facts: facts.prefix[:4] in (b"ptrt", b"ftrt") or facts.name.endswith((".engine", ".plan", ".trt")),
        "a TensorRT engine",
        _COMPILED,
    ),
    Refusal(_starts(b"RKNN"), "an RKNN model", _COMPILED),
    Refusal(_ends(".mnn"), "an MNN model", _NO_READER),
    Refusal(
        lambda facts: (
            facts.prefix.startswith((b"7767517\n", b"7767517\r", b"\xdd\x85\x76\x00"))
            or facts.name.endswith((".ncnn.bin", ".ncnn.param"))
        ),
        "an NCNN model",
        "its weights have no names and no shapes",
    ),
    Refusal(
        _ends(".pdmodel", ".pdiparams", ".pdparams"),
        "a PaddlePaddle model",
        f"{_NO_READER}; convert it with paddle2onnx",
    ),
    Refusal(
        _is_pickle,
        "a Python pickle (scikit-learn, joblib or other)",
        "to load it is to run whatever code it names",
        False,
    ),
    Refusal(
        lambda facts: facts.prefix[:1] == b"\x0a" and b"\x0a\x05<unk>" in facts.prefix[:64],
        "a SentencePiece vocabulary",
        "it holds words and their scores, no weights",
        False,
    ),
    Refusal(
        _starts(b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"),
        "an executable",
        "a model in a program is read only where a llamafile has it, uncompressed in a zip archive at its end",
        False,
    ),
    Refusal(
        _starts(b"ustar", at=257),
        "a tar archive",
        "only one that holds one model in a format that is read is opened",
        False,
    ),
    Refusal(
        lambda facts: facts.prefix.startswith(b"\x1f\x8b") and facts.name.endswith((".nemo", ".tgz")),
        "a compressed tar archive",
        "all of it would have to be inflated; do that with `gzip -dc FILE > model.tar`, which is read",
        False,
    ),
    Refusal(
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!"),
        "a compressed file or archive",
        _UNPACK,
        False,
    ),
)


def refusal(source: ByteSource) -> Refusal | None:
    """Return the row of a file that no reader claims, if it is in one of the formats above; None for others."""
    prefix = bytes(source.read_at(0, min(_PREFIX, source.size)))
    tail = bytes(source.read_at(max(source.size - _TAIL, 0), min(_TAIL, source.size)))
    facts = _Facts(prefix, tail, PurePath(source.name).name.lower())
    return next((row for row in TABLE if row.matches(facts)), None)
