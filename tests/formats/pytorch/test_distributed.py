from __future__ import annotations

import contextlib
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normsniff import decode, sniff
from normsniff.checkpoint import Checkpoint
from normsniff.errors import BudgetSpent, FormatError, LimitExceeded, NormsniffError, SourceError
from normsniff.formats import read_checkpoint
from normsniff.inputs.opening import open_source
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.source.local import BytesSource

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
from torch.distributed.checkpoint import filesystem, metadata  # noqa: E402  (after the skip)

W = np.arange(60, dtype=np.float32).reshape(6, 10)
# (offsets, sizes, file): the second file holds the lower left quarter
CUTS = [((0, 0), (3, 10), "__0_0.distcp"), ((3, 0), (3, 4), "__1_0.distcp"), ((3, 4), (3, 6), "__0_0.distcp")]


def saved(tensor: Any) -> bytes:
    out = io.BytesIO()
    torch.save(tensor, out)
    return out.getvalue()


def write(folder: Path, change: Callable[[Any], object] = lambda _: None) -> Path:
    """As ranks write their shards: `w` in three pieces in two files, `b` in one."""
    files: dict[str, bytes] = {}
    places: dict[Any, Any] = {}
    tensors: dict[str, Any] = {}
    cuts: dict[str, tuple[Any, list[tuple[tuple[int, ...], tuple[int, ...], str]]]] = {
        "model.w": (torch.from_numpy(W).bfloat16(), [*CUTS]),
        "model.b": (torch.arange(4.0), [((0,), (4,), "__1_0.distcp")]),
    }
    for name, (tensor, pieces) in cuts.items():
        chunks = []
        for i, (offsets, sizes, file) in enumerate(pieces):
            part = tensor[tuple(slice(at, at + n) for at, n in zip(offsets, sizes, strict=True))].clone()
            data, at = saved(part), len(files.get(file, b""))
            files[file] = files.get(file, b"") + data
            places[metadata.MetadataIndex(name, offsets, i)] = filesystem._StorageInfo(file, at, len(data))
            chunks.append(metadata.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        properties = metadata.TensorProperties(dtype=tensor.dtype)
        tensors[name] = metadata.TensorStorageMetadata(properties, tensor.shape, chunks)
    listed = metadata.Metadata({**tensors, "step": metadata.BytesStorageMetadata()}, None, places)
    change(listed)
    folder.mkdir(exist_ok=True)
    (folder / ".metadata").write_bytes(pickle.dumps(listed))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def check(checkpoint: Checkpoint) -> None:
    assert [(one.name, one.dtype, one.shape) for one in checkpoint.tensors.values()] == [
        ("model.w", "BF16", (6, 10)),
        ("model.b", "F32", (4,)),
    ]
    w = checkpoint.tensors["model.w"]
    np.testing.assert_array_equal(decode.read(w, Limits()), W)
    for axis in (0, 1):
        found = np.concatenate(list(decode.vectors(w, axis, Limits())))
        np.testing.assert_array_equal(found, np.moveaxis(W, axis, -1).reshape(-1, W.shape[axis]))
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["model.b"], Limits()), np.arange(4))


def test_pieces_of_several_ranks_are_one_model(tmp_path: Path) -> None:
    with contextlib.closing(open_source(write(tmp_path / "a"))) as checkpoint:
        assert (checkpoint.format, checkpoint.warnings) == ("PyTorch DCP", ())
        assert checkpoint.bytes_read == (tmp_path / "a" / ".metadata").stat().st_size
        check(checkpoint)


@given(
    st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n), st.integers(1, 4)) for n in W.shape]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_slice_is_that_of_the_whole(tmp_path: Path, index: tuple[tuple[int, int, int], ...]) -> None:
    folder = tmp_path / "a"
    with contextlib.closing(open_source(folder if folder.exists() else write(folder))) as checkpoint:
        ends = [min(first + n, most) for (first, n, _), most in zip(index, W.shape, strict=True)]
        cut = tuple(slice(first, end, step) for (first, _, step), end in zip(index, ends, strict=True))
        storage: Any = checkpoint.tensors["model.w"].storage
        np.testing.assert_array_equal(storage.read(cut).astype(np.float32), W[cut])


def test_what_torch_itself_writes(tmp_path: Path) -> None:
    state = {
        "model": {"w": torch.from_numpy(W).bfloat16(), "b": torch.arange(4.0)},
        "optimizer": {"state": {"w": torch.ones(3)}},
        "step": 5,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the missing process group
        dcp.save(state, checkpoint_id=tmp_path / "c", no_dist=True)
    with contextlib.closing(open_source(tmp_path / "c")) as checkpoint:
        check(checkpoint)
        assert checkpoint.warnings == ("1 tensor left out, state of a training run: optimizer.state.w",)


def test_it_is_labelled_by_the_directory_and_by_a_piece(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {}
    for block in ("model.layers.0", "model.layers.1", "model.layers.2"):
        state |= {f"{block}.{name}.weight": rng.random((32, 32), np.float32) for name in ("wq", "wo")}
        state |= {f"{block}.norm.{name}": rng.random(32, np.float32) for name in ("weight", "bias")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({name: torch.from_numpy(one) for name, one in state.items()}, checkpoint_id=tmp_path, no_dist=True)
    assert sniff(tmp_path).label == sniff(tmp_path / "__0_0.distcp").label == "LayerNorm"


def test_directories_of_them_are_searched(tmp_path: Path) -> None:
    write(tmp_path / "optimizer_0")
    write(tmp_path / "pytorch_model_fsdp_0")
    write(tmp_path / "torn")
    (tmp_path / "torn" / ".metadata").unlink()
    found = survey(tmp_path)
    assert [str(one.path.relative_to(tmp_path)) for one in found.inputs] == ["pytorch_model_fsdp_0/.metadata"]
    assert {str(path.relative_to(tmp_path)): reason.split(",")[0] for path, reason in found.skipped} == {
        "optimizer_0/.metadata": "state of a training run",
        "torn/__0_0.distcp": "pieces of tensors",
        "torn/__1_0.distcp": "pieces of tensors",
    }


def test_a_piece_without_the_list_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / ".metadata").unlink()
    with pytest.raises(SourceError, match=r"whose names are in \.metadata, which is not beside it"):
        sniff(tmp_path / "__0_0.distcp")
    with pytest.raises(FormatError, match="several archives one after the other"):
        read_checkpoint(BytesSource((tmp_path / "__0_0.distcp").read_bytes()), Limits())


def test_files_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "__0_0.distcp").unlink()
    with contextlib.closing(open_source(tmp_path)) as checkpoint:
        assert list(checkpoint.tensors) == ["model.b"]
        assert checkpoint.warnings == ("1 tensor left out, files with pieces of them are missing: model.w",)
    (tmp_path / "__1_0.distcp").unlink()
    with pytest.raises(SourceError, match="none of its 2 files is there"):
        open_source(tmp_path)


def place(listed: Any, **fields: Any) -> None:
    for index, one in listed.storage_data.items():
        if index.fqn == "model.w":
            for key, value in fields.items():
                object.__setattr__(one, key, value)


def resize(listed: Any, shape: list[int]) -> None:
    listed.state_dict_metadata["model.w"].size = torch.Size(shape)


def twice(listed: Any) -> None:
    """The upper half stands in for the lower one, too: as many elements, and a hole."""
    chunks = listed.state_dict_metadata["model.w"].chunks
    chunks[:] = [chunks[0], chunks[0]]


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "no tensors": (lambda listed: listed.state_dict_metadata.clear(), "no-tensors"),
    "a file elsewhere": (lambda listed: place(listed, relative_path="../x.distcp"), "unsafe-path"),
    "an absolute path": (lambda listed: place(listed, relative_path="/etc/passwd"), "unsafe-path"),
    "the list itself": (lambda listed: place(listed, relative_path=".metadata"), "unsafe-path"),
    "beyond the end": (lambda listed: place(listed, offset=10**15), "truncated"),
    "before the start": (lambda listed: place(listed, offset=-1), "bad-header"),
    "too short": (lambda listed: place(listed, length=3), "bad-header"),
    "compressed": (lambda listed: place(listed, transform_descriptors=["zstd"]), "unsupported"),
    "no places": (lambda listed: listed.storage_data.clear(), "bad-header"),
    "no list of places": (lambda listed: setattr(listed, "storage_data", None), "bad-header"),
    "another shape": (lambda listed: resize(listed, [7, 10]), "bad-header"),
    "a smaller shape": (lambda listed: resize(listed, [5, 10]), "bad-header"),
    "another rank": (lambda listed: resize(listed, [60]), "bad-header"),
    "a piece listed twice": (lambda listed: twice(listed), "bad-header"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_lists_that_contradict_themselves_are_refused(tmp_path: Path, name: str) -> None:
    change, code = REFUSED[name]
    with pytest.raises(FormatError) as caught:
        open_source(write(tmp_path, change))
    assert caught.value.code == code


def test_a_piece_that_is_another_tensor_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, lambda listed: setattr(listed.state_dict_metadata["model.b"].properties, "dtype", torch.int32))
    with (
        contextlib.closing(open_source(tmp_path)) as checkpoint,
        pytest.raises(FormatError, match="not the piece of model"),
    ):
        decode.read(checkpoint.tensors["model.b"], Limits())


def test_without_a_path_there_are_no_files_beside_it(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="name it by its path"):
        read_checkpoint(BytesSource((write(tmp_path) / ".metadata").read_bytes()), Limits())


def test_limits(tmp_path: Path) -> None:
    write(tmp_path)
    for limits in (Limits(tensors=3), Limits(files=1), Limits(header_bytes=100)):
        with pytest.raises(LimitExceeded):
            open_source(tmp_path / ".metadata", limits)
    with metered("m", Limits(steps=50)), pytest.raises(BudgetSpent):
        open_source(tmp_path)


@given(at=st.floats(0, 0.999), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_survived(tmp_path: Path, at: float, value: int, cut: bool) -> None:
    folder = write(tmp_path / "a")
    for name in (".metadata", "__0_0.distcp"):
        whole = (folder / name).read_bytes()
        data, i = bytearray(whole), int(at * len(whole))
        data[i] = value
        (folder / name).write_bytes(data[:i] if cut else data)
        with contextlib.suppress(NormsniffError), contextlib.closing(open_source(folder / ".metadata")) as checkpoint:
            for one in checkpoint.tensors.values():
                decode.read(one, Limits())
        (folder / name).write_bytes(whole)
