from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import normsniff
from normsniff.checks.codes import codes
from tests.helpers.faults import CONFIG, STATE_FAULTS, VALUE_FAULTS, inject, llama, save
from tests.helpers.manifest import FIXTURES

State = dict[str, NDArray[Any]]
Make = Callable[[Path], Path]


def of_values(name: str, model: str = "gpt2-ln") -> Make:
    fault = next(one for one in VALUE_FAULTS if one.name == name)
    return lambda folder: inject(FIXTURES / model, fault, folder)


def of_state(name: str) -> Make:
    def make(folder: Path) -> Path:
        state, config = llama(), dict(CONFIG)
        next(one for one in STATE_FAULTS if one.name == name).change(state, config)
        return save(state, config, folder / "model")

    return make


def added_again(folder: Path) -> Path:
    """A Gemma whose converter has added the 1 that its code adds."""
    random, state = np.random.default_rng(0), llama()
    for key in state:
        if key.endswith("norm.weight"):
            w = random.normal(0.2, 0.1, state[key].shape).astype(ml_dtypes.bfloat16)
            state[key] = w.astype(np.float32) + np.float32(1)
    return save(state, {"model_type": "gemma", "rms_norm_eps": 1e-6}, folder / "model")


def massive(folder: Path) -> Path:
    return save({k: v * (1 + 9 * np.isin(np.arange(64), [5, 40])) if "norm" in k else v for k, v in llama().items()},
                CONFIG, folder / "model")  # fmt: skip


def gpt2(folder: Path, change: Callable[[str, NDArray[Any]], NDArray[Any]]) -> Path:
    """Save the GPT-2 of the fixtures with other writers."""
    state = safetensors.numpy.load_file(FIXTURES / "gpt2-ln" / "model.safetensors")
    writers = ("c_proj.weight", "c_proj.bias", "wte.weight", "wpe.weight")
    return save({k: change(k, v) if k.endswith(writers) else v for k, v in state.items()}, None, folder / "model")


def rewritten(folder: Path) -> Path:
    return gpt2(folder, lambda _, v: v - v.mean(-1, keepdims=True))


def tampered(folder: Path) -> Path:
    random = np.random.default_rng(0)
    return gpt2(folder, lambda _, v: (v + 2 * v.std() * random.normal(size=(*v.shape[:-1], 1))).astype(np.float32))


def disguised(folder: Path) -> Path:
    return Path(shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", folder / "model.gguf"))


class Calling:
    def __reduce__(self) -> Any:
        return eval, ("1",)


def dangerous(folder: Path) -> Path:
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"w": torch.ones(2)}, "more": Calling()}, folder / "model.pt")
    return folder / "model.pt"


EXAMPLES: Mapping[str, Make] = {
    "scale-offset": added_again,
    "not-finite": of_values("a NaN"),
    "huge": of_values("a huge value"),
    "untrained": of_values("one scale initialised again"),
    "missing": of_state("a norm is missing"),
    "foreign": of_state("a shift too many"),
    "dead": of_values("zeros"),
    "massive": massive,
    "repeated": of_values("a norm mapped twice"),
    "dtype": of_state("scales in eight bits"),
    "epsilon": of_state("epsilon 1e5"),
    "shape": of_state("all scales sharded"),
    "contradiction": of_state("shifts in a family without"),
    "rewritten": rewritten,
    "tampered": tampered,
    "disguised": disguised,
    "dangerous-pickle": dangerous,
}
"""A file for every code, whose finding is the example on the code's page."""


def test_every_code_has_an_example_that_is_run() -> None:
    assert EXAMPLES.keys() == codes().keys()


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_of_a_code_is_what_check_prints(code: str, tmp_path: Path) -> None:
    deep = code in ("rewritten", "tampered")
    found = [one for one in normsniff.check(EXAMPLES[code](tmp_path), deep=deep).findings if one.code == code]
    printed = {" ".join(f"{one.severity} {code} {one.reason}".split()) for one in found}
    first = re.split(r"\n(?=\w)", codes()[code].example)[0]  # a page may show a second finding
    said = ".*".join(re.escape(part) for part in " ".join(first.split()).split("…"))
    assert any(re.fullmatch(said, one) for one in printed), printed
    assert codes()[code].severity in ("error", "warning", "note")
    for one in found:
        assert one.cure
