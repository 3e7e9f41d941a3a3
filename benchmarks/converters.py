"""Clean conversions by the real converters, which must have no error, and the faults that are put into them.

    python -m benchmarks.converters [--llama-cpp DIRECTORY] [--out DIRECTORY] [--only FAMILY,...]

The models of `calibration.scale_models` are saved by transformers in float32 and bfloat16, and converted by what is
installed: `convert_hf_to_gguf.py` of a llama.cpp checkout (its vocabulary left out: these models have none), mlx-lm
(as it is and in 4 bits), CTranslate2, KerasHub, optimum and torch.onnx. What a converter does not take is counted and
named. optimum asks for transformers 4; models are then those that were saved in `--out` before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import normsniff
from tests.helpers.faults import VALUE_FAULTS, Arrays, ValueFault, add, copied, inject

Convert = Callable[[Path, Path], Path]
_KEYS = {
    "rope_theta": 10000.0,
    "n_ctx": 128,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    "full_attention_interval": 2,
}
"""Keys of configurations of transformers 4 that converters still ask for."""


def models(out: Path, only: set[str]) -> Iterator[Path]:
    """Train the models, and yield a folder for each and each type."""
    scale_models, torch, transformers = (
        importlib.import_module(name) for name in ("calibration.scale_models", "torch", "transformers")
    )
    for folder in scale_models.train(out / "trained"):
        if not folder.name.endswith("-far") or (only and folder.name.removesuffix("-far") not in only):
            continue
        for kind in ("float32", "bfloat16"):
            target = out / f"{folder.name.removesuffix('-far')}-{kind}"
            if not target.exists():
                model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, kind))
                model.save_pretrained(target)
                config = json.loads((target / "config.json").read_text())
                (target / "config.json").write_text(json.dumps(_KEYS | config))
                (target / "tokenizer.json").write_text('{"model": {"vocab": {}}, "added_tokens": []}')
            yield target


def converters(llama_cpp: Path | None) -> dict[str, Convert]:
    """Return what can be run here."""
    found: dict[str, Convert] = {"transformers": lambda model, _: model}
    if llama_cpp is not None:
        sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
        found |= {f"GGUF {kind}": _gguf(kind) for kind in ("MOSTLY_F16", "MOSTLY_Q8_0")}
    if importlib.util.find_spec("mlx_lm"):
        found |= {"MLX": _mlx(None), "MLX, 4 bits": _mlx(4)}
    if importlib.util.find_spec("ctranslate2"):
        found["CTranslate2"] = _ctranslate2
    if importlib.util.find_spec("keras_hub"):
        found |= {"KerasHub, .keras": _keras_hub(".keras"), "KerasHub, .weights.h5": _keras_hub(".weights.h5")}
    if importlib.util.find_spec("optimum"):
        found["optimum"] = _optimum
    found["torch.onnx"] = _onnx
    return found


def _gguf(kind: str) -> Convert:
    def convert(model: Path, out: Path) -> Path:
        script, conversion, gguf = (
            importlib.import_module(name) for name in ("convert_hf_to_gguf", "conversion", "gguf")
        )
        parameters = conversion.ModelBase.load_hparams(model, False)
        architecture = script.get_model_architecture(parameters, conversion.ModelType.TEXT)
        own = conversion.get_model_class(architecture, mmproj=False)
        bare = {"set_vocab": lambda _: None, "model_arch": own.model_arch, "no_mtp": True}
        path = out / "model.gguf"
        type(own.__name__, (own,), bare)(model, getattr(gguf.LlamaFileType, kind), path, eager=False).write()
        return path

    return convert


def _mlx(bits: int | None) -> Convert:
    def convert(model: Path, out: Path) -> Path:
        utils = importlib.import_module("mlx_lm.utils")
        loaded, config = utils.load_model(model, lazy=False)
        if bits is not None:
            loaded, config = utils.quantize_model(loaded, config, 32, bits)
        utils.save_model(out, loaded, donate_model=True)
        utils.save_config(config, out / "config.json")
        return out

    return convert


def _ctranslate2(model: Path, out: Path) -> Path:
    class Vocabulary:
        unk_token, bos_token, eos_token, pad_token = "<unk>", "<s>", "</s>", "<pad>"
        bos_token_id, eos_token_id, unk_token_id = 1, 2, None
        added_tokens_encoder: ClassVar[dict[str, int]] = {}

        def get_vocab(self) -> dict[str, int]:
            return {str(i): i for i in range(128)}

    converter = importlib.import_module("ctranslate2").converters.TransformersConverter(str(model))
    converter.load_tokenizer = lambda *_, **__: Vocabulary()
    return Path(converter.convert(str(out / "converted"), force=True))


def _onnx(model: Path, out: Path) -> Path:
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    loaded.config.use_cache = False
    path = out / "model.onnx"
    tokens = torch.ones(1, 8, dtype=torch.long)
    torch.onnx.export(loaded, (), str(path), kwargs={"input_ids": tokens}, dynamo=True, external_data=False)
    return path


def _keras_hub(suffix: str) -> Convert:
    def convert(model: Path, out: Path) -> Path:
        os.environ["KERAS_BACKEND"] = "torch"  # of what is installed here
        backbone = importlib.import_module("keras_hub").models.Backbone.from_preset(str(model))
        path = out / f"model{suffix}"
        (backbone.save if suffix == ".keras" else backbone.save_weights)(path)
        return path

    return convert


def _optimum(model: Path, out: Path) -> Path:
    export = importlib.import_module("optimum.exporters.onnx").main_export
    export(str(model), str(out), task="text-generation", do_validation=False)
    return out


def faults(clean: Path, count: Counter[str], kind: str) -> None:
    """Put every fault of values into a copy, and count what is found; what is missed is named."""
    with normsniff.norms(clean) as norms:
        names, every = [one.name for one in norms], list(_faults(list(norms)))
    for fault in every:
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = normsniff.check(inject(clean, fault, Path(folder)))
            except (AssertionError, IndexError, normsniff.NormsniffError):
                count["not put in"] += 1  # equal scales, or one tensor for several
                continue
        told = [one for one in report.findings if one.code == fault.code]
        grave = [one for one in told if one.severity != "note" or fault.code != "scale-offset"]
        named, wanted = {name for one in told for name in one.norms}, {names[at] for at in fault.at}
        column = "faults" if fault.code != "scale-offset" else "at one place" if fault.at else "shifts"
        found = bool(grave) and (bool(named & wanted) if column == "at one place" else wanted <= named)
        count[column] += 1
        count[f"{column} found"] += found
        if not found:
            print(f"missed: {fault.name} in {clean.name} ({kind}):", [(o.severity, o.code) for o in report.findings],
                  file=sys.stderr)  # fmt: skip
        if column != "faults":
            right = wanted or set(names)
            left = {name for one in grave for name in one.details.get("not_told", ())}
            count[f"{column}: norms"] += len(right)
            count[f"{column}: named"] += len(named & right)
            count[f"{column}: left open"] += len(left & right)
            count[f"{column}: named wrongly"] += len(named - right)


def _faults(norms: Sequence[normsniff.NormParameters]) -> Iterator[ValueFault]:
    """Yield the faults, copies between norms of one length, and shifts at one place of the blocks alone."""
    centred = any(one.zero_centred for one in norms)
    for fault in VALUE_FAULTS:
        if fault.code == "repeated" or max(fault.at, default=0) >= len(norms) or (centred and fault.name == "zeros"):
            continue  # a stored zero is a scale of 1 there
        yield fault
    places: dict[str, list[int]] = {}
    for i, one in enumerate(norms):
        places.setdefault(re.sub(r"\d+", "#", one.name), []).append(i)
    sizes = [0 if one.stored is None else one.stored.size for one in norms]
    layers = [one.layer for one in norms]
    for i, j in combinations(range(len(norms)), 2):
        if sizes[i] == sizes[j] and layers[i] == layers[j] is not None:
            yield ValueFault("a norm mapped twice", "repeated", copied(i, j), (i, j))
            break
    for place in places.values():
        if len(place) > 1:
            yield ValueFault("a block copied", "repeated", copied(place[0], place[1]), (place[0], place[1]))
            break
    for name, place in places.items():
        for number in (1, -1) if len(place) > 1 else ():
            yield ValueFault(f"{number:+d} at {name}", "scale-offset", _at(place, number), tuple(place))


def _at(place: Sequence[int], number: int) -> Callable[[Arrays], Arrays]:
    return lambda scales: [add(number)(one).astype(one.dtype) if i in place else one for i, one in enumerate(scales)]


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converters", description=__doc__)
    parser.add_argument("--llama-cpp", type=Path)
    parser.add_argument("--out", type=Path, default=Path("converted"))
    parser.add_argument("--only", default="", help="families, separated by commas")
    given = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    made = list(models(given.out, set(filter(None, given.only.split(",")))))
    for name, convert in converters(given.llama_cpp).items():
        count = counts.setdefault(name, Counter())
        for model in made:
            target = Path(tempfile.mkdtemp())
            try:
                path = convert(model, target)
            except Exception as error:  # noqa: BLE001 - every converter has errors of its own
                count["refused"] += 1
                print(f"{name} does not take {model.name}: {type(error).__name__}", file=sys.stderr)
                continue
            report = normsniff.check(path)
            count["files"] += 1
            count["with an error"] += report.count("error") > 0
            count["with a warning"] += report.count("warning") == 1
            count["with more"] += report.count("warning") > 1
            if not any(one.code == "untrained" for one in report.findings):
                faults(path, count, name)
            shutil.rmtree(target)
    columns = (
        "files", "refused", "with an error", "with a warning", "with more", "faults", "faults found", "shifts",
        "shifts found", "shifts: norms", "shifts: named", "shifts: left open", "at one place", "at one place found",
        "at one place: norms", "at one place: named", "at one place: left open", "at one place: named wrongly",
    )  # fmt: skip
    print(f"| converter | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, count in counts.items():
        print(f"| {name} | {' | '.join(str(count[column]) for column in columns)} |")


if __name__ == "__main__":
    main()
