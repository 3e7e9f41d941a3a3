"""The model types of transformers as cases: real names and shapes, and the truth from running every norm once.

    python -m benchmarks.conformance.probe OUT.jsonl [--without TABLE.json] [--only NAME ...]

Every type is built with its default configuration on the meta device, which costs no memory. Each norm module is then
given random parameters and two inputs on the CPU: LayerNorm does not notice a constant that is added, RMSNorm does.
A line of the output is one type: its tensors, its configuration, and the norm of each of its networks.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cases import Case

_BESIDE = re.compile(  # in attention, in heads, in extra prediction heads: not of the stream
    r"(^|[._])(q|k|qk|query|key|v|kv|q_a|kv_a)_?(layer)?norm|norm_(q|k)\b|indexer|compressor|\bmtp\b|pooler|projector"
    r"|predictions|lm_head|merger|resampler|nextn|linear_attn|(^|\.)mixer\.norm|mamba\.norm|ssm|altup|laurel|per_layer"
)
_SHARE = 0.15  # of the rarer kind, as in normsniff.evidence.weights.MIXED_SHARE
_FORMS = ((2, 7, -1), (2, -1, 3, 5), (7, -1))  # of an input: sequence, image, rows; -1 stands for the width


def kind_of(module: Any) -> str | None:
    """Return what a norm module computes: ``LayerNorm``, ``RMSNorm``, another kind, or None if it cannot be run."""
    import torch

    name = type(module).__name__
    for other in ("BatchNorm", "GroupNorm", "InstanceNorm", "WeightNorm", "NoNorm"):
        if other.lower() in name.lower() and isinstance(module, torch.nn.Module) and "Diff" not in name:
            return other
    try:
        twin = copy.deepcopy(module).to_empty(device="cpu").float()
    except Exception:  # noqa: BLE001 - whatever a foreign module does
        return None
    for parameter in (*twin.parameters(), *twin.buffers()):
        if parameter.is_floating_point():
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    widths = {max(p.shape) for p in twin.parameters() if p.dim()} or {
        n for shape in (getattr(module, "normalized_shape", ()) or (),) for n in shape
    }
    for form in _FORMS:
        x = torch.randn([max(widths, default=64) if n < 0 else n for n in form])
        try:
            with torch.no_grad():
                plain, shifted, scaled = twin(x), twin(x + 1.5), twin(4 * x)
            if plain.shape != x.shape or not torch.allclose(plain, scaled, atol=2e-2, rtol=2e-2):
                continue
            return "LayerNorm" if torch.allclose(plain, shifted, atol=2e-2, rtol=2e-2) else "RMSNorm"
        except Exception:  # noqa: BLE001 - another form may fit; gated norms want a second input
            continue
    return None


def probe(model_type: str) -> dict[str, Any] | None:
    """Build a model type and run its norms; None if transformers cannot build it from its defaults."""
    import torch
    import transformers
    from transformers.initialization import no_init_weights
    from transformers.models.auto import modeling_auto

    settings = transformers.CONFIG_MAPPING[model_type]()
    architecture = modeling_auto.MODEL_MAPPING_NAMES.get(model_type)
    architecture = architecture[0] if isinstance(architecture, (tuple, list)) else architecture
    model_class = getattr(transformers, architecture) if architecture else _class_of(type(settings))
    with torch.device("meta"), no_init_weights():
        model = model_class(settings)
    tensors = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    written = json.loads(settings.to_json_string(use_diff=False))
    networks = _networks(model)
    main = _main(settings, networks)
    labels = {name: _label(found["norms"]) for name, found in networks.items()}
    return {
        "name": model_type, "tensors": tensors, "config": {**written, "architectures": [model_class.__name__]},
        "truth": labels[main], "main": main, "networks": labels,
    }  # fmt: skip


def _class_of(config: type) -> Any:
    """Return a model class that takes this configuration, for types that no auto class lists."""
    import importlib

    module = importlib.import_module(config.__module__.replace("configuration_", "modeling_"))
    fitting = (cls for cls in vars(module).values() if getattr(cls, "config_class", None) is config)
    return next(cls for cls in fitting if not cls.__name__.endswith("PreTrainedModel"))


def _networks(model: Any) -> dict[str, dict[str, Any]]:
    """Group norms by the model type of the nearest pretrained model around them; count its parameters."""
    from transformers import PreTrainedModel

    owners = {
        path: module.config.model_type for path, module in model.named_modules() if isinstance(module, PreTrainedModel)
    }
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"norms": [], "size": 0})

    def owner(path: str) -> str:
        while path not in owners:
            path = path.rpartition(".")[0]
        return str(owners[path])

    for path, tensor in model.state_dict().items():
        found[owner(path.rpartition(".")[0])]["size"] += tensor.numel()
    seen: dict[tuple[Any, ...], str | None] = {}
    for path, module in model.named_modules():
        if "norm" not in type(module).__name__.lower() or type(module).__name__.startswith("_"):
            continue
        if any("norm" in type(inner).__name__.lower() for inner in module.modules() if inner is not module):
            continue
        shapes = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
        key = (type(module), shapes, getattr(module, "normalized_shape", None))
        if key not in seen:
            seen[key] = kind_of(module)
        width = max((max(shape, default=0) for _, shape in shapes), default=0)
        found[owner(path)]["norms"].append((path, seen[key], width))
    return found


def _main(settings: Any, networks: dict[str, dict[str, Any]]) -> str:
    """The network of the text configuration if there is one, else the outermost if it has norms, else the largest."""
    text = settings.get_text_config() if hasattr(settings, "get_text_config") else settings
    name = getattr(text, "model_type", "")
    if name in networks and (text is not settings or len(networks) == 1):
        return str(name)
    if _label(networks.get(settings.model_type, {"norms": []})["norms"]) in ("LayerNorm", "RMSNorm", "mixed"):
        return str(settings.model_type)
    return max(networks, key=lambda one: networks[one]["size"])


def _label(norms: list[tuple[str, str | None, int]]) -> str | None:
    """The kind of the stream; ``none`` where neither kind is there, None where it was not found out."""
    stream = [(kind, width) for path, kind, width in norms if not _BESIDE.search(path.lower())]
    kinds = Counter(kind for kind, _ in stream if kind in ("LayerNorm", "RMSNorm"))
    if not kinds:
        return None if any(kind is None for kind, _ in stream) else "none"
    if len(kinds) == 2 and min(kinds.values()) / kinds.total() >= _SHARE:
        return "mixed"
    return kinds.most_common(1)[0][0]


def cases(path: Path) -> Iterator[Case]:
    """Yield the cases of a file that this module has written: with a configuration, without, and numbered."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["truth"] is None:
                continue
            tensors = {name: tuple(shape) for name, shape in row["tensors"].items()}
            case = Case(row["name"], "probed", "with config.json", row["truth"], {}, tensors, config=row["config"])
            yield case
            yield Case(row["name"], "probed", "without config.json", row["truth"], {}, tensors)
            yield case.numbered()


def main() -> int:
    """Probe every type; print those that cannot be built."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", type=Path, help="leave out the model types of this table")
    parser.add_argument("--only", nargs="*", help="these model types")
    arguments = parser.parse_args()
    known = json.loads(arguments.without.read_text(encoding="utf-8"))["models"] if arguments.without else {}
    names = arguments.only or [name for name in transformers.CONFIG_MAPPING if name not in known]
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    with arguments.out.open("w", encoding="utf-8") as out:
        for name in names:
            try:
                row = probe(name)
            except Exception as error:  # noqa: BLE001 - whatever a default configuration lacks
                print(f"{name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
                continue
            out.write(json.dumps(row) + "\n")
            out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
