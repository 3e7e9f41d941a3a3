"""What a label of a large remote model costs, in requests and bytes; it is the label of the same file on a disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from normsniff import sniff
from normsniff.batch.scan import find_inputs
from normsniff.inputs.opening import models_of
from normsniff.limits import Limits
from normsniff.source.places import place_of
from tests.helpers.manifest import FIXTURES
from tests.helpers.servers import Handler, RangeServer
from tests.helpers.sparse import llama, write_safetensors, write_sharded

BIG = llama(19)  # 8.2 GB of BF16
LATENCY = 0.03


@pytest.fixture
def large(server: RangeServer, tmp_path: Path) -> RangeServer:
    """Serve 8 GB in five shards, 30 ms away."""
    assert write_sharded(tmp_path, BIG, 5) > 8e9
    server.latency = LATENCY
    noise = np.random.default_rng(0).normal(0, 0.02, 999_983).astype(np.float32)
    server.noise = (noise.view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    return server


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model-00002-of-00005.safetensors"])
def test_header_and_scales_of_8_gb_take_12_requests(large: RangeServer, name: str) -> None:
    started = time.perf_counter()
    record = sniff(large.url(name), evidence=("declared", "layout"))
    assert record.label == "RMSNorm"
    assert (record.tensors, record.scales, record.file_size) == (len(BIG), 39, record.file_size)
    assert len(large.requests) <= 12
    assert large.sent <= 1_500_000
    assert (record.bytes_read, record.requests) == (large.sent, len(large.requests))
    assert time.perf_counter() - started < 12 * LATENCY + 2


def test_where_nothing_was_learned_a_glance_at_8_gb_is_enough(large: RangeServer) -> None:
    record = sniff(large.url("model.safetensors.index.json"))
    assert record.shadows
    assert record.matrices_left
    assert large.sent <= 8_000_000


def test_the_kernel_of_8_gb_takes_32_mb(large: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.course.is_quiet", lambda _measured: False)  # these weights are not trained
    record = sniff(large.url("model.safetensors.index.json"))
    assert len(record.shadows) >= 8
    assert large.sent <= 32_000_000
    assert record.bytes_read is not None
    assert 0 <= large.sent - record.bytes_read < 10_000, "what parts the ranges of one answer is no byte of the file"
    assert len(large.requests) <= 120


@pytest.mark.parametrize(
    "name",
    [
        "gpt2-ln.Q8_0.gguf",
        "gpt2-ln.f16.keras",
        "gpt2-ln.f16.h5",
        "gpt2-ln.dynamo23.f16.onnx",
        "gpt2-ln.torchscript14.f16.external",
        "llama-rms-sharded",
        "llama-rms.split.Q8_0-00001-of-00002.gguf",
    ],
)
def test_fixtures_have_the_same_label_behind_a_url(server: RangeServer, tmp_path: Path, name: str) -> None:
    server.root = FIXTURES
    here, there = sniff(FIXTURES / name), sniff(server.url(f"{name}/" if (FIXTURES / name).is_dir() else name))
    assert (there.label, there.confidence, there.file_size) == (here.label, here.confidence, here.file_size)
    assert [(one.tensor, one.rho) for one in there.shadows] == [(one.tensor, one.rho) for one in here.shadows]
    assert (there.bytes_read or 0) <= server.sent
    assert (there.requests, here.requests) == (len(server.requests), None)


def test_only_what_is_needed_is_imported(server: RangeServer, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "llama-rms.bf16.safetensors", tmp_path / "m.safetensors")
    code = "import sys, normsniff; normsniff.sniff(sys.argv[1]); print(*sys.modules)"
    for source, absent in (
        (str(tmp_path / "m.safetensors"), {"fsspec", "aiohttp", "normsniff.source.remote.paths"}),
        (server.url("m.safetensors"), {"s3fs", "botocore", "huggingface_hub", "onnx", "h5py", "gguf"}),
    ):
        done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
        assert not absent & set(done.stdout.split())


def test_config_beside_a_single_file_is_used_and_its_absence_costs_little(server: RangeServer, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", llama(2, d=64, f=128, vocabulary=512))
    without = sniff(server.url("m.safetensors"), evidence=("declared", "layout"))
    assert server.paths.count("/config.json") == server.paths.count("/params.json") == 1
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with_config = sniff(server.url("m.safetensors"), evidence=("declared", "layout"))
    assert without.architecture is None
    assert with_config.architecture is not None


def test_a_directory_that_cannot_be_listed_hides_no_other(server: RangeServer, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        shutil.copy(FIXTURES / "llama-rms.bf16.safetensors", tmp_path / name / "model.safetensors")

    def fault(handler: Handler, _: int) -> bool:
        if handler.path == "/b/":
            handler.reply(418)
        return handler.path == "/b/"

    server.fault = fault
    passed: list[tuple[str, str]] = []
    place = place_of(server.url(""), Limits())
    found = [str(one) for one in models_of(place, Limits(), lambda path, reason: passed.append((str(path), reason)))]
    assert found == [server.url(f"{name}/model.safetensors") for name in ("a", "c")]
    assert passed == [(server.url("b"), "the server answers 418")]
    assert [*find_inputs([server.url("")], lambda *_: None)] == found
