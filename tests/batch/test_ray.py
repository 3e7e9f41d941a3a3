"""A scan on real clusters that lose a node or a worker in the middle: still one row an input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import normsniff
from normsniff.record import Classification
from tests.helpers.manifest import FIXTURES

LN = FIXTURES / "gpt2-ln.Q8_0.gguf"


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--engines"):
        pytest.skip("starts a cluster: pytest --engines")


def wait_for(log: Path, lines: int) -> None:
    while len(log.read_text().splitlines()) < lines:
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_loses_a_node(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # on a busy machine
    from ray.cluster_utils import Cluster

    inputs = [tmp_path / f"{n:03}.bin" for n in range(240)]
    for path in inputs:
        path.write_bytes(b"HOSTILE" + f"time.sleep(0.1); raise ValueError({path.name!r})".encode())
    crash, copies = tmp_path / "crash.bin", [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    crash.write_bytes(b"HOSTILEctypes.string_at(0)")
    for copy in copies:
        shutil.copy(LN, copy)
    inputs += [crash, *copies, crash]
    listed = tmp_path / "inputs.txt"
    listed.write_text("".join(f"{path}\n" for path in inputs))
    output = tmp_path / "out.parquet"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        arguments = ["scan", str(listed), "-o", str(output), "--engine", "ray", "--address", cluster.address]
        command = [sys.executable, "-m", "normsniff", *arguments]
        scan = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(hostile, 60)
        cluster.remove_node(nodes[0], allow_graceful=False)
        said = scan.communicate(timeout=400)[1]
        assert scan.returncode == 2, said
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "--resume" in refused.stderr
        again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
        assert "243 inputs" in again.stderr
        assert "0 inputs now" in again.stderr
    finally:
        cluster.shutdown()
    table = [row for part in output.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    assert Counter(row["path"] for row in table) == dict.fromkeys(map(str, inputs), 1)
    assert len(list(output.glob("part-*"))) == 5
    codes = {row["path"]: row["error_code"] for row in table}
    assert codes[str(crash)] == "crashed"
    assert {codes[str(path)] for path in inputs[:240]} == {"malformed"}
    assert sorted(row["status"] for row in table if row["path"] in map(str, copies)) == ["answered", "duplicate"]
    readings = Counter(hostile.read_text().splitlines())
    assert set(readings) == set(map(str, [*inputs[:240], crash]))
    assert any(count > 1 for count in readings.values()), "a batch was lost and done again"


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_dask_loses_a_worker(hostile: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    inputs = [tmp_path / f"{n:02}.bin" for n in range(30)]
    for path in inputs:
        path.write_bytes(b"HOSTILE" + f"time.sleep(0.3); raise ValueError({path.name!r})".encode())
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        records = normsniff.sniff_many([*inputs, LN], client.get_executor())
        found = [next(records) for _ in range(5)]
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        found += records
    assert Counter(record.path for record in found) == dict.fromkeys(map(str, [*inputs, LN]), 1)
    (answered,) = (record for record in found if isinstance(record, Classification))
    assert answered.label == "LayerNorm"
