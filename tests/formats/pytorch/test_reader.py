from __future__ import annotations

import ast
import collections
import pickle
import pickletools
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint
from normsniff.formats.pytorch import pickles
from normsniff.inputs.shards import open_model
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.torch_files import FLOATS, VALUES, Ask, Global, archive, code, dumps, storage, stream, tensor


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m"), limits or Limits())


W = tensor("0", (3, 4), (4, 1))
STATE = {"w": W, "b": tensor("0", (4,), (1,), 8), "wt": tensor("0", (4, 3), (1, 4))}


@pytest.mark.parametrize("data", [archive(STATE), stream(STATE)], ids=["zip", "stream"])
def test_tensors_are_byte_ranges_and_views(data: bytes) -> None:
    checkpoint = read(data)
    assert checkpoint.format == "PyTorch"
    assert {name: (t.dtype, t.shape) for name, t in checkpoint.tensors.items()} == {
        "w": ("F32", (3, 4)),
        "b": ("F32", (4,)),
        "wt": ("F32", (4, 3)),
    }
    place = checkpoint.tensors["w"].storage
    assert isinstance(place, Extent)
    assert data[place.start : place.stop] == FLOATS
    whole = {name: decode.read(t, Limits()) for name, t in checkpoint.tensors.items()}
    np.testing.assert_array_equal(whole["w"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(whole["b"], VALUES[8:])
    np.testing.assert_array_equal(whole["wt"], VALUES.reshape(3, 4).T)
    assert [w for w in checkpoint.warnings if "not row-major" in w]


def test_versions_and_containers_are_told_apart() -> None:
    assert [read(data).metadata["container"] for data in (archive(STATE), stream(STATE))] == ["zip", "stream"]
    assert read(archive(STATE, records={"constants.pkl": b""})).metadata["container"] == "TorchScript"
    assert read(archive(STATE)).version == "3"


@pytest.mark.parametrize(
    ("kind", "dtype", "width"),
    [
        ("DoubleStorage", "F64", 8), ("HalfStorage", "F16", 2), ("BFloat16Storage", "BF16", 2),
        ("LongStorage", "I64", 8), ("IntStorage", "I32", 4),
        ("ShortStorage", "I16", 2), ("CharStorage", "I8", 1), ("ByteStorage", "U8", 1),
        ("BoolStorage", "BOOL", 1), ("ComplexFloatStorage", "C64", 8),
    ],
)  # fmt: skip
def test_every_storage(kind: str, dtype: str, width: int) -> None:
    value = {"x": tensor("0", (3,), (1,), 1, kind, 4)}
    for data in (archive(value, {"0": bytes(4 * width)}), stream(value, {"0": (4, bytes(4 * width))})):
        found = read(data).tensors["x"]
        assert (found.dtype, found.nbytes) == (dtype, 3 * width)


@pytest.mark.parametrize(("name", "dtype"), [("float8_e4m3fn", "F8_E4M3"), ("uint16", "U16"), ("bfloat16", "BF16")])
def test_types_without_a_storage_of_their_own(name: str, dtype: str) -> None:
    hooks = Ask("collections", "OrderedDict")
    value = Ask(
        "torch._utils", "_rebuild_tensor_v3", storage("UntypedStorage", "0", 8), 1, (2,), (1,), False, hooks,
        Global("torch", name),
    )  # fmt: skip
    found = read(archive({"x": value}, {"0": bytes(8)})).tensors["x"]
    width = found.nbytes // 2
    assert found.dtype == dtype
    assert isinstance(found.storage, Extent)
    whole = read(archive({"x": tensor("0", (8,), (1,), 0, "ByteStorage")}, {"0": bytes(8)})).tensors["x"].storage
    assert isinstance(whole, Extent)
    assert found.storage.stop - found.storage.start == 2 * width


def test_parameters_subclasses_and_devices_are_seen_through() -> None:
    hooks = Ask("collections", "OrderedDict")
    parts = W.arguments
    value = {
        "parameter": Ask("torch._utils", "_rebuild_parameter", W, True, hooks),
        "with state": Ask("torch._utils", "_rebuild_parameter_with_state", W, True, hooks, {"a": 1}),
        "elsewhere": Ask("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", W,
            Global("torch", "float32"), "x", 0),
        "subclass": Ask(
            "torch._tensor", "_rebuild_from_type_v2", Global("torch._utils", "_rebuild_tensor_v2"), Global("a", "B"),
            parts, None,
        ),
    }  # fmt: skip
    checkpoint = read(archive(value))
    assert list(checkpoint.tensors) == list(value)
    assert all(decode.read(t, Limits()).tolist() == VALUES.reshape(3, 4).tolist() for t in checkpoint.tensors.values())
    assert checkpoint.warnings == ("the pickle asks for a.B: not imported, not executed",)


def test_big_endian_files() -> None:
    data = VALUES.astype(">f4").tobytes()
    checkpoint = read(archive(STATE, {"0": data}, records={"byteorder": b"big"}))
    assert checkpoint.tensors["w"].byteorder == ">"
    for name, expected in (("w", VALUES.reshape(3, 4)), ("wt", VALUES.reshape(3, 4).T)):
        np.testing.assert_array_equal(decode.read(checkpoint.tensors[name], Limits()), expected)


def test_quantised_tensors() -> None:
    def quantised(*parameters: Any) -> Ask:
        return Ask(
            "torch._utils", "_rebuild_qtensor", storage("QInt8Storage", "q", 6), 0, (2, 3), (3, 1), parameters, False,
            Ask("collections", "OrderedDict"),
        )  # fmt: skip

    stored = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
    scales, zeros = np.array([0.5, 2.0]), np.array([1, 0])
    value = {
        "tensor": quantised(Global("torch", "per_tensor_affine"), 0.5, 1),
        "huge": quantised(Global("torch", "per_tensor_affine"), 1e300, 1),
        "channel": quantised(
            Global("torch", "per_channel_affine"),
            tensor("s", (2,), (1,), 0, "DoubleStorage"),
            tensor("z", (2,), (1,), 0, "LongStorage"),
            0,
        ),
    }
    files = {"q": stored.tobytes(), "s": scales.tobytes(), "z": zeros.astype("<i8").tobytes()}
    found = read(archive(value, files)).tensors
    np.testing.assert_array_equal(decode.read(found["tensor"], Limits()), (stored - 1.0) * 0.5)
    assert np.isinf(decode.read(found["huge"], Limits())).any(), "a scale beyond float32 is no warning, and no number"
    np.testing.assert_array_equal(decode.read(found["channel"], Limits()), (stored - zeros[:, None]) * scales[:, None])


def test_views_into_storages_of_old_files() -> None:
    value = {
        "x": Ask(*["torch._utils", "_rebuild_tensor"], storage("FloatStorage", "0", 12, ("9", 4, 8)), 1, (3,), (1,))
    }
    np.testing.assert_array_equal(decode.read(read(stream(value), Limits()).tensors["x"], Limits()), VALUES[5:8])


# --- what a checkpoint calls its tensors ------------------------------------------------------------------------

MODULE = {
    "training": False,
    "_parameters": {"weight": W},
    "_buffers": {"mean": W},
    "_modules": {"ln": Ask("a", "LayerNorm", state={"_parameters": {"bias": W}, "_modules": {}}, new=True)},
    "hidden": {"x": W},
}
NAMES: list[tuple[str, Any, list[str], str]] = [
    ("plain", {"a.weight": W}, ["a.weight"], ""),
    ("OrderedDict with metadata", Ask("collections", "OrderedDict", state={"_metadata": {}}), [], "no-tensors"),
    ("state_dict", {"epoch": 3, "state_dict": {"a": W, "b": W}}, ["a", "b"], ""),
    ("nested", {"model": {"enc": {"a": W}, "dec": {"a": W}}}, ["enc.a", "dec.a"], ""),
    ("two towers", {"enc": {"a": W}, "dec": {"a": W}}, ["enc.a", "dec.a"], ""),
    ("two containers", {"model": {"a": W}, "head": {"a": W}}, ["model.a", "head.a"], ""),
    ("optimizer",
     {"model": {"a": W}, "optimizer": {"state": {0: {"exp_avg": W}}}}, ["a"], "state of a training run: opt"),
    ("Lightning",
     {"state_dict": {"a": W}, "optimizer_states": [{"x": W}], "lr_schedulers": []}, ["a"], "optimizer_states"),
    ("EMA", {"model": {"a": W}, "model_ema": {"a": W}}, ["a"], "averaged copies"),
    ("EMA alone", {"ema": {"a": W}}, ["a"], ""),
    ("a list", [W, {"x": W}], ["0", "1.x"], ""),
    ("a tensor", W, ["tensor"], ""),
    ("integer keys", {0: {1: W}}, ["0.1"], ""),
    ("a module", Ask("a", "Model", state=MODULE, new=True), ["weight", "mean", "ln.bias"], "a.Model, a.LayerNorm"),
    ("in a checkpoint", {"model": Ask("a", "Model", state=MODULE, new=True)}, ["weight", "mean", "ln.bias"], "a.Model"),
    ("TorchScript",
     Ask("__torch__", "M", state={"a": Ask("__torch__.b", "N", state={"w": W}, new=True)}, new=True), ["a.w"], ""),
    ("two of one name", {"a.b": W, "a": {"b": W}}, ["a.b"], "left out under the name of another: a.b"),
    ("sparse", {"a": W, "s": Ask("torch._utils", "_rebuild_sparse_tensor", 1)}, ["a"], "sparse tensor"),
    ("meta", {"a": W, "m": Ask("torch._utils", "_rebuild_meta_tensor_no_storage", 1)}, ["a"], "meta device"),
    ("repeated", {"a": W, "x": tensor("0", (5, 12), (0, 1))}, ["a"], "a view that repeats elements: x"),
    ("NumPy", {"a": W, "n": Ask("numpy.core.multiarray", "_reconstruct", 1)}, ["a"], "an array of NumPy"),
    ("malformed", {"a": W, "x": Ask("torch._utils", "_rebuild_tensor_v2", 1, 2, 3, 4)}, ["a"], "malformed"),
    ("no offsets below zero", {"a": W, "x": tensor("0", (2,), (1,), -1)}, ["a"], "malformed"),
    ("no strides below zero", {"a": W, "x": tensor("0", (2,), (-1,), 4)}, ["a"], "malformed"),
    ("a long name", {"a": W, "x" * 1500: W}, ["a"], "names that are too long"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "names", "words"), [row[1:] for row in NAMES], ids=[row[0] for row in NAMES])
def test_names(value: Any, names: list[str], words: str) -> None:
    for data in (archive(value), stream(value)):
        if not names:
            with pytest.raises(FormatError, match=words):
                read(data)
            continue
        checkpoint = read(data)
        assert list(checkpoint.tensors) == names
        assert words in " / ".join(checkpoint.warnings)
        assert words or not checkpoint.warnings


# --- attacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(X\x08\x00\x00\x00touch it" + b"tR",
        b"(X\x08\x00\x00\x00touch itios\nsystem\n",
        b"(cos\nsystem\nX\x08\x00\x00\x00touch ito",
        b"\x8c\x02os\x8c\x06system\x93(tR",
        b"cos\nsystem\n)\x81}b",
        b"cos\nsystem\n)}\x92",
    ],
    ids=["reduce", "inst", "obj", "stack_global", "newobj", "newobj_ex"],
)
def test_code_is_named_and_not_run(code: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for data in (archive({"w": W, "x": code}), stream({"w": W, "x": code})):
        checkpoint = read(data)
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.warnings == ("the pickle asks for os.system: not imported, not executed",)
    assert not list(tmp_path.iterdir())


def test_real_gadgets_are_not_run(tmp_path: Path) -> None:
    class Gadget:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    for protocol in range(6):
        text = pickle.dumps({"x": Gadget(), "y": collections.OrderedDict(a=1)}, protocol)
        for data in (archive(text), stream(text)):
            with pytest.raises(FormatError, match=r"Path\.touch|asks for \w+\.getattr") as caught:
                read(data)
            assert caught.value.code == "no-tensors"
    assert not (tmp_path / "touched").exists()


def test_dangerous_names_come_first_and_the_list_is_bounded() -> None:
    strange: dict[str, Any] = {f"x{i}": Global("harmless", f"C{i}") for i in range(50)}
    (note,) = read(archive({"w": W, **strange, "y": Global("posix", "system")})).warnings
    assert note.startswith("the pickle asks for posix.system, harmless.C0,")
    assert note.endswith("and 31 more: not imported, not executed")


D = b"\x80\x02"
REFUSED: list[tuple[str, bytes, str]] = [
    ("an empty pickle", b"", "truncated"),
    ("no STOP", D + b"}", "truncated"),
    ("cut off in a text", D + b"X\xff\xff\xff\x7fabc", "truncated"),
    ("a text of 8 EiB", D + b"\x8d" + b"\xff" * 8 + b"a", "truncated"),
    ("bytes of 8 EiB", D + b"\x8e" + b"\xff" * 8 + b"a", "truncated"),
    ("a bytearray of 8 EiB", b"\x80\x05\x96" + b"\xff" * 8 + b"a", "truncated"),
    ("an integer of 2 GiB", D + b"\x8b\xff\xff\xff\x7f1", "truncated"),
    ("an integer of negative length", D + b"\x8b\xff\xff\xff\xff1", "bad-pickle"),
    ("an empty stack", D + b".", "bad-pickle"),
    ("nothing to reduce", D + b"}R.", "bad-pickle"),
    ("no mark", D + b"}}u.", "bad-pickle"),
    ("a mark taken for a value", D + b"(.", "bad-pickle"),
    ("a key without a value", D + b"}(Nu.", "bad-pickle"),
    ("memo never set", D + b"h\x05.", "bad-pickle"),
    ("a text for a memo", D + b"gxx\n.", "bad-pickle"),
    ("protocol 9", b"\x80\x09}.", "bad-pickle"),
    ("an unknown instruction", D + b"\xee.", "bad-pickle"),
    ("a name that is a number", b"\x80\x04K\x01K\x01\x93.", "bad-pickle"),
    ("a line without end", D + b"c" + b"a" * 9000, "bad-pickle"),
    ("an integer in words", D + b"Iten\n.", "bad-pickle"),
    ("only None", D + b"N.", "no-tensors"),
    ("an extension", D + b"\x82\x01.", "no-tensors"),
    ("contains itself", D + b"}q\x00X\x01\x00\x00\x00ah\x00s.", "no-tensors"),
    ("a list of itself", D + b"]q\x00h\x00a.", "no-tensors"),
    ("an object with itself for state", D + b"ca\nb\n)Rq\x00h\x00b.", "no-tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_pickles_are_refused(text: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(archive(text))
    assert caught.value.code == code
    assert caught.value.where.startswith("m")
    assert len(str(caught.value)) < 1000


def test_memo_keys_allocate_nothing() -> None:
    assert list(read(archive(D + b"}r\xff\xff\xff\xff(" + dumps("w")[2:-1] + code(W) + b"u.")).tensors) == ["w"]


BOMBS: dict[str, bytes] = {
    "dicts shared twice on every level": D + b"}q\x00" + b"".join(
        b"}(" + code("a") + b"h%c" % i + code("b") + b"h%c" % i + b"uq%c" % (i + 1) for i in range(60)
    ) + b".",
    "tuples shared twice on every level": D + b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
    ) + b".",
    "deep tuples": D + b")" + b"\x85" * 50_000 + b".",
    "deep lists": D + b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep calls": D + b"ca\nb\n" * 31_000 + b")" + b"R)" * 30_000 + b".",
    "deep wrappers": D + b"ctorch._utils\n_rebuild_parameter\nq\x00" + b"h\x00" * 31_000 + b")"
    + b"\x85R" * 30_000 + b".",
    "one long list made a set over and over": D + b"](" + b"N" * 100_000 + b"eq\x00"
    + b"cbuiltins\nset\nq\x01" + b"0h\x01h\x00\x85R" * 20_000 + b".",
    "one long list made a dict over and over": D + b"](" + b"N" * 100_000 + b"eq\x00"
    + b"ccollections\nOrderedDict\nq\x01" + b"0h\x01h\x00\x85R" * 20_000 + b".",
    "many empty dicts": D + b"(" + b"}" * 100_000 + b"t.",
    "names without end": D + b"(" + b"".join(b"ca\n%d\n" % i for i in range(30_000)) + b"t.",
}  # fmt: skip


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_cost_little(text: bytes) -> None:
    started = time.process_time()
    with pytest.raises((FormatError, LimitExceeded)):
        read(archive(text))
    assert time.process_time() - started < 10  # seconds; the slowest takes about one


def test_limits() -> None:
    for data in (archive(STATE), stream(STATE)):
        assert len(read(data, Limits(tensors=40)).tensors) == 3
        with pytest.raises(LimitExceeded):
            read(data, Limits(tensors=2))
        with pytest.raises(LimitExceeded):
            read(data, Limits(header_bytes=20))


FILES: list[tuple[str, bytes, str]] = [
    ("storage too short", archive(STATE, {"0": FLOATS[:-1]}), "bad-offset"),
    ("storage missing", archive(STATE, {}), "truncated"),
    ("storage compressed", archive(STATE, {"0": bytes(48)}, zipfile.ZIP_DEFLATED), "unsupported"),
    ("an offset beyond", archive({"x": tensor("0", (4,), (1,), 9)}), "bad-offset"),
    ("a stride beyond", archive({"x": tensor("0", (2,), (12,))}), "bad-offset"),
    ("an offset that wraps", archive({"x": tensor("0", (2,), (1,), (1 << 62) - 1)}), "bad-offset"),
    ("a shape that wraps", archive({"x": tensor("0", (1 << 61, 8), (8, 1))}), "bad-offset"),
    ("another byte order", archive(STATE, records={"byteorder": b"middle"}), "bad-byteorder"),
    ("stream of another protocol", stream(STATE, protocol=1), "unsupported"),
    ("stream without its storage", stream(STATE, {}), "truncated"),
    ("stream cut off", stream(STATE)[:-1], "truncated"),
    ("stream that ends in a pickle", stream(STATE)[:200], "truncated"),
    ("a negative count", stream(STATE, {"0": (-1, FLOATS)}), "truncated"),
    ("a huge count", stream(STATE, {"0": (1 << 62, FLOATS)}), "truncated"),
    ("a storage of nobody", stream(STATE, {"0": (12, FLOATS), "1": (0, b"")}), "bad-header"),
    ("archive cut off", archive(STATE)[:-30], "bad-archive"),
    ("a pickle of no checkpoint", pickle.dumps({"a": 1}), "unknown-format"),
    ("a tar without a checksum", bytes(257) + b"ustar" + bytes(250), "bad-header"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_hostile_files_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code


def test_two_members_of_one_name_are_refused() -> None:
    data = archive(STATE, {"0": FLOATS, "1": FLOATS}).replace(b"archive/data/1", b"archive/data/0")
    with pytest.raises(FormatError, match="duplicate-key"):
        read(data)


def test_storage_keys_are_no_paths() -> None:
    with pytest.raises(FormatError, match="is missing"):
        read(archive({"x": tensor("../../../etc/passwd", (1,), (1,))}))


def test_a_configuration_beside_the_file_and_an_index_of_shards(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for i in (1, 2):
        (tmp_path / f"pytorch_model-0000{i}-of-00002.bin").write_bytes(archive({f"w{i}": W}))
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(
        '{"weight_map": {"w1": "pytorch_model-00001-of-00002.bin", "w2": "pytorch_model-00002-of-00002.bin"}}'
    )
    for path in (index, tmp_path / "pytorch_model-00002-of-00002.bin"):
        checkpoint = open_model(path)
        assert list(checkpoint.tensors) == ["w1", "w2"]
        assert checkpoint.config == {"model_type": "bert"}
        assert not checkpoint.warnings
        checkpoint.close()


SMALL = [archive(STATE), stream(STATE), archive(Ask("a", "Model", state=MODULE, new=True))]


@given(which=st.sampled_from(SMALL), at=st.integers(0, 900), value=st.integers(0, 255))
@example(which=SMALL[0], at=0, value=0)
@settings(max_examples=60, deadline=None)
def test_any_byte_may_be_anything(which: bytes, at: int, value: int) -> None:
    data = bytearray(which)
    data[at % len(data)] = value
    _survives(bytes(data))


@given(which=st.sampled_from(SMALL), at=st.integers(0, 900))
@settings(max_examples=60, deadline=None)
def test_any_end_may_be_missing(which: bytes, at: int) -> None:
    _survives(which[: at % len(which)])


@given(st.lists(st.sampled_from([bytes([i]) for i in range(256)] + [code(W), code("a"), b"ca\nb\n"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_program_is_survived(program: list[bytes]) -> None:
    _survives(archive(D + b"".join(program) + b"."))


def test_a_tensor_whose_name_is_too_long_to_be_kept_is_there_all_the_same() -> None:
    long = {letter * 5_000: tensor("0", (3, 4), (4, 1)) for letter in "ab"}
    found = read(archive(long)).tensors
    assert list(found) == ["(a name of 5,000 bytes, the 0th)", "(a name of 5,000 bytes, the 1th)"]


def _survives(data: bytes) -> None:
    try:
        for found in read(data).tensors.values():
            if found.size < 1000:
                decode.read(found, Limits())
    except NormsniffError:
        pass


def test_of_the_module_pickle_only_the_names_of_instructions_are_used() -> None:
    tree = ast.parse(Path(pickles.__file__).read_text(encoding="utf-8"))
    assert {alias.asname for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} == {
        "op",
        None,
    }
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "op"]
    names = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.value in used]
    assert len(names) == len(used) > 60
    assert all(isinstance(getattr(pickle, name), bytes) and len(getattr(pickle, name)) == 1 for name in names)
    known = {ord(one.code) for one in pickletools.opcodes}
    assert known == {*pickles._Machine(b"", Limits(), str)._actions, ord(".")}
