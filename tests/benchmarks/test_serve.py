"""The load test in small, and the container that the service runs in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers.manifest import ROOT

DOCKERFILE = ROOT / "Dockerfile"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_request_is_lost() -> None:
    for needed in ("starlette", "uvicorn", "prometheus_client", "aiohttp"):
        pytest.importorskip(needed)
    command = [sys.executable, "-m", "benchmarks.serve", "--requests", "40", "--jobs", "1", "--queue", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost" not in done.stdout
    ends = done.stdout.partition("obeying Retry-After")[2]
    assert sum(int(n) for n in re.findall(r"^ +\w+: +(\d+) ", ends, re.MULTILINE)) == 40
    assert "429" not in ends
    assert re.search(r"200: +\d+ +\(good 20\b", ends)


def test_the_container_runs_as_a_user_of_its_own_and_tells_its_health() -> None:
    text = DOCKERFILE.read_text("utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root|0\b)", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "/healthz" in last


def test_hadolint_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("no hadolint")
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_builds_and_answers() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no docker")
    built = subprocess.run(
        [docker, "build", "-q", str(ROOT)], capture_output=True, text=True, timeout=1200, check=False
    )
    assert built.returncode == 0, built.stderr
    image = built.stdout.strip()
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8420/healthz', timeout=5).read().decode())"
    run = [docker, "run", "--rm", "-d", "--read-only", "--tmpfs", "/tmp", image]  # noqa: S108 - inside the container
    name = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        wait = f'for i in $(seq 30); do python -c "{ask}" && exit 0; sleep 1; done; exit 1'
        said = subprocess.run([docker, "exec", name, "sh", "-c", wait], capture_output=True, text=True, check=False)
        assert '"ok"' in said.stdout, said.stderr
    finally:
        subprocess.run([docker, "kill", name], capture_output=True, check=False)
