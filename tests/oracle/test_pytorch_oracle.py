"""PyTorch files against ``torch.load``: the same tensors with the same values, in both containers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normsniff import decode, sniff
from normsniff.inputs.shards import open_model
from normsniff.limits import Limits
from tests.helpers.manifest import FIXTURES

torch = pytest.importorskip("torch")
CONTAINERS = pytest.mark.parametrize("container", ["zip", "stream"])


def save(value: Any, path: Path, container: str) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=container == "zip")
    return path


def zoo() -> dict[str, Any]:
    base = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    images = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    found = {
        "base": base, "transposed": base.t(), "rows": base[2:5], "columns": base[:, 1:3], "steps": base[::2, ::3],
        "scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "ones": torch.ones(1, 4, 1).transpose(0, 1),
        "permuted": torch.randn(3, 4, 5).permute(2, 0, 1), "channels last": images,
        "parameter": torch.nn.Parameter(base.clone()), "buffer": torch.nn.Buffer(base.clone()),
    }  # fmt: skip
    names = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64 float8_e4m3fn float8_e5m2"
    found |= {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names.split()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["per tensor"] = torch.quantize_per_tensor(base, 0.1, 3, torch.quint8)
        scales, zeros = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.zeros(4, dtype=torch.long)
        found["per channel"] = torch.quantize_per_channel(base, scales, zeros, 1, torch.qint8)
    return found


@CONTAINERS
def test_every_kind_of_tensor(tmp_path: Path, container: str) -> None:
    values = zoo()
    checkpoint = open_model(save(values, tmp_path / "x.pt", container))
    assert list(checkpoint.tensors) == list(values)
    for name, value in values.items():
        found = checkpoint.tensors[name]
        dense = value.dequantize() if value.is_quantized else value
        expected = dense.detach().float().numpy()
        assert found.shape == expected.shape, name
        np.testing.assert_array_equal(decode.read(found, Limits()), expected, err_msg=name)
        for axis in range(expected.ndim if expected.size else 0):
            vectors = np.concatenate(list(decode.vectors(found, axis, Limits())))
            rows = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])
            np.testing.assert_array_equal(np.sort(vectors, axis=0), np.sort(rows, axis=0), err_msg=name)
    checkpoint.close()


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path: Path, container: str, protocol: int) -> None:
    path = tmp_path / "x.pt"
    state = {"a": torch.ones(3), "nested": {"b": torch.zeros(2, 2)}, "number": 5}
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")
    checkpoint = open_model(path)
    assert list(checkpoint.tensors) == ["a", "nested.b"]
    assert not checkpoint.warnings
    checkpoint.close()


class Block(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is Any where it is not installed
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Sequential(torch.nn.BatchNorm1d(8))])

    def forward(self, x: Any) -> Any:
        return self.layers[0](self.norm(x))


@CONTAINERS
def test_a_whole_module_is_its_state_dict(tmp_path: Path, container: str) -> None:
    model = Block()
    checkpoint = open_model(save({"epoch": 1, "model": model}, tmp_path / "x.pt", container))
    expected = model.state_dict()
    assert set(checkpoint.tensors) == set(expected)
    assert "Block" in checkpoint.warnings[0]
    for name, found in checkpoint.tensors.items():
        np.testing.assert_array_equal(decode.read(found, Limits()), expected[name].float().numpy())
    checkpoint.close()


def test_torchscript(tmp_path: Path) -> None:
    model = Block()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.ones(1, 8)), tmp_path / "x.pt")
    checkpoint = open_model(tmp_path / "x.pt")
    assert checkpoint.metadata["container"] == "TorchScript"
    assert set(checkpoint.tensors) <= set(model.state_dict())
    assert {"norm.weight", "norm.bias", "layers.0.weight"} <= set(checkpoint.tensors)
    checkpoint.close()


def test_a_training_checkpoint(tmp_path: Path) -> None:
    model = Block()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "rng_state": torch.get_rng_state()}
    checkpoint = open_model(save(state, tmp_path / "x.ckpt", "zip"))
    assert set(checkpoint.tensors) == set(model.state_dict())
    assert checkpoint.warnings == ("2 entries left out, state of a training run: optimizer, rng_state",)
    checkpoint.close()


@CONTAINERS
@pytest.mark.parametrize("name", ["gpt2-ln", "llama-rms", "bert-ln"])
def test_the_verdict_does_not_depend_on_the_container(tmp_path: Path, container: str, name: str) -> None:
    load = pytest.importorskip("safetensors.torch").load_file
    original = FIXTURES / name / "model.safetensors"
    for file in (FIXTURES / name).glob("config.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = save(load(original), tmp_path / "pytorch_model.bin", container)
    expected, found = sniff(original), sniff(path)
    assert (found.label, found.confidence) == (expected.label, expected.confidence)
    rho = [{shadow.tensor: shadow.rho for shadow in one.shadows} for one in (expected, found)]
    assert rho[0] == rho[1]
    assert not found.warnings
