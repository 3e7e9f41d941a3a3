"""What pytest hands to tests: options, real models, a server, programs on the PATH, a browser, a hostile format."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.real_models import find_real_model
from tests.helpers.servers import RangeServer

# No test depends on seconds: a busy machine takes as long as it takes to draw an example and to run it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_CACHED = "normsniff/skipped"
_skipped: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engines", action="store_true", help="run the tests that start Ray and Dask clusters (minutes)")
    parser.addoption(
        "--skipped", action="store_true", help="run only what the last run skipped, as more is installed now"
    )
    parser.addoption(
        "--require-models", action="store_true", help="fail, instead of skipping, where a real model is not installed"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Take a worker a core for the whole suite; for some files, starting workers takes longer than it saves."""
    return None if config.args == config.getini("testpaths") else 0


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.add(report.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput") and hasattr(session.config, "cache"):  # not in a worker of xdist
        assert session.config.cache is not None
        session.config.cache.set(_CACHED, sorted(_skipped))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--skipped"):
        assert config.cache is not None
        again = set(config.cache.get(_CACHED, []))  # a test, or a file all of which was skipped
        chosen = [item for item in items if again & {item.nodeid, item.nodeid.partition("::")[0]}]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


@pytest.fixture
def real_model(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Return a function from a short name to the path of a real model; skips the test if it is not installed."""

    def find(name: str) -> Path:
        path = find_real_model(name)
        if path is None:
            give_up = pytest.fail if request.config.getoption("--require-models") else pytest.skip
            give_up(f"the package of {name} is not installed (group `models`)")
        return path

    return find


@pytest.fixture
def normsniff_on_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a `normsniff` and a `python` that run this checkout in front of the PATH of child processes."""
    folder = tmp_path_factory.mktemp("bin")
    python = shlex.quote(sys.executable)
    for name, command in {"normsniff": f"{python} -m normsniff", "python": python}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    with RangeServer(tmp_path_factory.mktemp("served")) as server:
        yield server
        server.shutdown()


@pytest.fixture
def server(_server: RangeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RangeServer:
    """Serve the test's own directory over HTTP; attempts follow each other at once."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("normsniff.source.remote.link._FIRST_WAIT", 0.01)
    monkeypatch.setenv("no_proxy", "*")
    _server.reset()
    _server.root = tmp_path
    return _server


HOSTILE = """
import ctypes, os, signal, time
from normsniff.formats import Format

FORMAT = Format("Hostile", lambda prefix, size: prefix.startswith(b"HOSTILE"), __name__)


def read(source, limits):
    with open(os.environ["HOSTILE_LOG"], "a") as log:
        log.write(source.name + "\\n")
    exec(bytes(source.read_at(7, source.size - 7)))
"""
"""A format whose files are programs: what a hostile file does to a reader with a hole in it, without the hole."""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the hostile format for processes that are started now; returns its log, one path a reading."""
    site = tmp_path / "site"
    info = site / "hostile-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[normsniff.formats]\nhostile = hostile:FORMAT\n")
    (site / "hostile.py").write_text(HOSTILE)
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("HOSTILE_LOG", str(log))
    return log


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a screen, for pages; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()
