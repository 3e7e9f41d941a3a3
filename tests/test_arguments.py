"""A caller's mistake is a TypeError or a ValueError, before any file is opened: for every public function."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normsniff
from normsniff import arguments
from normsniff.limits import Limits
from normsniff.record import EvidenceKind
from tests.helpers.manifest import FIXTURES

MODEL = str(FIXTURES / "gpt2-ln.Q8_0.gguf")
ARRAYS = {"a.weight": np.ones((8, 8), np.float32)}
GOOD: dict[str, dict[str, Any]] = {
    "sniff": {"source": MODEL},
    "plan": {"source": MODEL},
    "check": {"source": MODEL},
    "norms": {"source": MODEL},
    "directions": {"source": MODEL},
    "readout": {"activations": ARRAYS, "source": MODEL},
    "prune": {"source": MODEL, "output": "o.safetensors"},
    "sniff_many": {"inputs": [MODEL]},
    "scan": {"roots": [MODEL]},
    "track": {"paths": [MODEL]},
    "monitor": {"state": ARRAYS},
    "Monitor": {"state": ARRAYS},
    "Penalty": {"parameters": ARRAYS},
    "penalty": {"matrix": np.ones((3, 4)), "axis": 0},
    "Workers": {},
    "Limits": {},
}
"""Every public function, with arguments that are right."""

# Values that no argument of this name may have.
SIZES: list[Any] = ["32 potatoes", "", -1, 1.5, True, b"32MB", [1], {}]
BAD: dict[str, list[Any]] = {
    "source": [5, 1.5, True, None, [MODEL], {1}, "", object(), io.StringIO("text")],
    "activations": [5, None, [MODEL], "", object()],
    "inputs": ["ab", MODEL, Path(MODEL), b"ab", 5, None, ARRAYS, [5], [None], [""], [MODEL, b"x"]],
    "roots": ["", 5, None, b"ab", ARRAYS, [5], [""], [None]],
    "paths": ["", 5, None, b"ab", ARRAYS, [5], [""], [None]],
    "output": ["", 5, b"x", [MODEL], object()],
    "state": [5, None, "ab", [1], object()],
    "parameters": [5, None, "ab", [1], object()],
    "matrix": [5, None, "ab", [[1.0]], np.ones(3), object()],
    "axis": ["0", 1.0, None, True, 2, -3],
    "scale": [5, "ab", [1.0], np.ones(5)],
    "evidence": ["taste", "", (), [], ["kernel", "taste"], 5, None, b"kernel", {"kernel": 1}, [5], True],
    "limits": [5, "1GB", {}, True, Limits],
    "budget": SIZES,
    "memory": [*SIZES, 0],
    "device": ["gpu", "", 5, None, True],
    "check": [1, "yes", []],
    "isolate": [1, "yes", None],
    "deep": [1, "yes", None],
    "resume": [1, "yes", None],
    "dedupe": [1, "yes", None],
    "skip": [1, "yes", []],
    "exclude": [5, None, b"x", [5], {"a": 1}],
    "tell": [1, "yes", []],
    "timeout": [0, -1, "20", True, float("nan"), float("inf"), []],
    "jobs": [0, -1, 1.5, "2", True, []],
    "in_flight": [0, -1, 1.5, "2", True, None],
    "executor": [5, "ab", object()],
    "norm": [5, b"x", [5], {"a": 1}, True],
    "dtype": ["float16", "taste", 5, object()],
    "threshold": [-1, 2, "x", None, True, float("nan")],
    "vectors": [0, -1, 1.5, "x", None, True],
    "prefix": [5, None, b"x"],
    "config": [5, "ab", [1]],
}
UNLIKE: dict[tuple[str, str], list[Any]] = {("readout", "norm"): [5, b"x", ["a"], True]}


def cases() -> Iterator[tuple[str, str, Any]]:
    for function, good in GOOD.items():
        if function == "Limits":
            continue
        names = [name for name in inspect.signature(getattr(normsniff, function)).parameters if name != "options"]
        names += ["evidence", "limits", "budget", "device", "check"] * (function == "sniff_many")
        names += ["vectors", "prefix", "config"] * (function == "monitor")
        for name in dict.fromkeys([*names, *good]):
            for value in UNLIKE.get((function, name), BAD[name]):
                yield function, name, value


def call(function: str, **changed: Any) -> Any:
    return getattr(normsniff, function)(**{**GOOD[function], **changed})


def use(found: Any, *, each: bool) -> None:
    """Use up an iterator over inputs, each of which is looked at when its turn comes."""
    if each:
        list(found)


@pytest.mark.parametrize(
    ("function", "name", "value"), [*cases()], ids=lambda value: f"{value!r:.30}".partition(" at 0x")[0]
)
def test_a_wrong_argument_is_told_at_once(
    function: str, name: str, value: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError)) as caught:
        use(call(function, **{name: value}), each=name == "inputs" and isinstance(value, list))
    assert not isinstance(caught.value, normsniff.NormsniffError)
    assert str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_public_function_is_in_the_table() -> None:
    plain = {"json_schema"}  # takes nothing
    public = {name for name in normsniff.__all__ if callable(getattr(normsniff, name))}
    made_by_us = {name for name in public if name[0].isupper()} - {"Monitor", "Penalty", "Workers", "Limits"}
    assert public - made_by_us - plain == GOOD.keys()


@pytest.mark.parametrize("function", ["sniff_many", "monitor"])
def test_an_option_that_there_is_not_is_a_type_error(function: str) -> None:
    with pytest.raises(TypeError, match="taste"):
        call(function, taste=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=5), st.binary(max_size=5),
        st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    )
)  # fmt: skip
@pytest.mark.parametrize("name", ["source", "evidence", "limits", "budget", "device", "check", "timeout", "memory"])
def test_anything_at_all_is_taken_or_refused(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "source" and isinstance(value, (str, bytes, dict)):
        return  # a path, a file, arrays
    monkeypatch.setattr("normsniff.workers.alone", lambda *_, **__: None)
    with contextlib.suppress(TypeError, ValueError):
        found = call("sniff", **{"isolate": name in ("timeout", "memory"), name: value})
        assert name in ("timeout", "memory") or isinstance(found, normsniff.Classification)


def test_what_is_meant_is_understood() -> None:
    record = normsniff.sniff(MODEL, budget="30kB", evidence="kernel")
    alone: tuple[EvidenceKind, ...] = ("kernel",)
    assert record == normsniff.sniff(MODEL, budget=30_000, evidence=alone)
    number: Any = np.int64(30_000)
    assert record == normsniff.sniff(MODEL, budget=number, evidence=["kernel"], limits=None)
    assert normsniff.plan(MODEL, budget="1MB", evidence="layout,kernel").most_bytes > 0
    (one,) = normsniff.sniff_many((path for path in [Path(MODEL)]), budget="30kB", evidence="kernel")
    assert isinstance(one, normsniff.Classification)
    assert one.label == record.label


class Module:
    """As much of a module of torch as is asked for."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self._arrays = arrays

    def state_dict(self) -> dict[str, Any]:
        return self._arrays


def test_a_module_is_as_good_as_its_state() -> None:
    from safetensors.numpy import load_file

    arrays = load_file(FIXTURES / "gpt2-ln" / "model.safetensors")
    module = Module(arrays)
    assert normsniff.monitor(module) == normsniff.monitor(arrays)
    assert normsniff.Monitor(module)(module) == normsniff.Monitor(arrays)(arrays)
    assert normsniff.Penalty(module)(module).keys() == {"writers", "readers"}
    assert normsniff.sniff(module) == normsniff.sniff(arrays)  # type: ignore[arg-type]


def test_a_module_of_torch_and_its_gradients() -> None:
    torch = pytest.importorskip("torch")
    block = torch.nn.TransformerEncoderLayer(32, 4, 64)
    network = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    assert normsniff.monitor(network).keys() >= {"normsniff/rho_writers"}
    sum(normsniff.Penalty(network)(network).values()).backward()
    assert any(one.grad is not None for one in network.parameters())


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000000", 10**6), ("32MB", 32 * 10**6), ("1.5 KiB", 1536), (" 2gb ", 2 * 10**9), ("7b", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert arguments.parse_size(text) == size


@given(st.text(max_size=12))
def test_a_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert arguments.parse_size(text) >= 0


@pytest.mark.parametrize("field", Limits.__dataclass_fields__)
@pytest.mark.parametrize("value", ["1GB", -1, True, [], float("nan")])
def test_limits_are_numbers(field: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=field):
        Limits(**{field: value})


@pytest.mark.parametrize("make", [lambda: io.BytesIO(b"text"), lambda: io.BytesIO(b"")])
def test_what_is_read_is_a_matter_of_the_file(make: Callable[[], Any]) -> None:
    with pytest.raises(normsniff.NormsniffError):
        normsniff.sniff(make())
