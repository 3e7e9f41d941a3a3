"""Cases from the two reference tables: llama.cpp's architectures and projectors, the model types of transformers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .cases import Case, Shapes, Value

Json = Mapping[str, Any]

_WIDTH, _HIDDEN, _VOCABULARY, _BLOCKS = 64, 192, 512, 3
_RMS_KEY, _LAYER_KEY = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_KINDS = ("LayerNorm", "RMSNorm")


def word(truth: str | None) -> str | None:
    """A truth of the tables as a label; None if the tables do not know it.

    >>> word("LayerNorm tower, RMSNorm merger"), word("BatchNorm/GroupNorm"), word("mixed:GroupNorm+LayerNorm")
    ('LayerNorm', 'none', 'LayerNorm')
    """
    if truth is None or "unsupported" in truth or truth == "other":
        return None
    if truth == "mixed":
        return truth
    tower = truth.split(",")[0].split("(")[0]
    found = [kind for kind in _KINDS if kind in tower]
    return "mixed" if len(found) == 2 else found[0] if found else "none"


# --- llama.cpp ---------------------------------------------------------------------------------------------------


def gguf(table: Json) -> Iterator[Case]:
    """Every architecture: with the keys that its loader reads, and with both epsilon keys, whatever it reads."""
    for arch, row in table["archs"].items():
        truth = word(row["residual_norm"])
        if arch == "clip":
            continue  # by projector, below
        names = row["norm_weight_tensors"]
        tensors = dict(_llama_cpp_matrices(names))
        for name in names:
            tensors |= _expand(name, (_WIDTH,), "N")
        required, optional = dict(tensors), dict(tensors)
        for name, need in row["bias_tensors"].items():
            optional |= _expand(name, (_WIDTH,), "N")
            required |= _expand(name, (_WIDTH,), "N") if need == "required" else {}
        metadata: dict[str, Value] = {"general.architecture": arch, f"{arch}.embedding_length": _WIDTH}
        keys = {key.format(arch=arch): 1e-5 for key, need in row["loader_keys"].items() if "epsilon" in key}
        both = {f"{arch}.{key}": 1e-5 for key in (_RMS_KEY, _LAYER_KEY)}
        if row["residual_norm"] == "by_key":
            yield Case(
                arch, "GGUF", "LayerNorm key", "LayerNorm", {}, required, metadata | {f"{arch}.{_LAYER_KEY}": 1e-5}
            )
            yield Case(arch, "GGUF", "both keys", "RMSNorm", {}, required, metadata | both)
            continue
        assert truth is not None
        yield Case(arch, "GGUF", "loader's keys", truth, {}, required, metadata | keys)
        yield Case(arch, "GGUF", "both keys", truth, {}, required, metadata | both)
        yield Case(arch, "GGUF", "no keys, all shifts", truth, {}, optional, metadata)


def _llama_cpp_matrices(norms: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (_VOCABULARY, _WIDTH)
    prefixes = {name.split("N.")[0] for name in norms if "N." in name} or {"blk."}
    for prefix, block in itertools.product(sorted(prefixes), range(_BLOCKS)):
        if not prefix.endswith("blk."):
            continue
        for leaf in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{prefix}{block}.{leaf}.weight", (_WIDTH, _WIDTH)
        yield f"{prefix}{block}.ffn_up.weight", (_HIDDEN, _WIDTH)
        yield f"{prefix}{block}.ffn_down.weight", (_WIDTH, _HIDDEN)


def projectors(table: Json) -> Iterator[Case]:
    """Every projector as a vision file, or an audio file; with shifts and without, since its tensors do not tell."""
    for kind, row in table["clip_projectors"].items():
        truth = word(row.get("tower"))
        if truth is None:
            continue
        audio = _is_audio(kind, row)
        tower, letter = ("audio", "a") if audio else ("vision", "v")
        metadata: dict[str, Value] = {
            "general.architecture": "clip", "general.type": "mmproj", f"clip.has_{tower}_encoder": True,
            f"clip.{tower}.attention.layer_norm_epsilon": 1e-6, f"clip.{tower}.embedding_length": _WIDTH,
            f"clip.{tower}.block_count": _BLOCKS,
        }  # fmt: skip
        for key in ("clip.projector_type", f"clip.{tower}.projector_type"):
            for shifts in (True, False):
                variant = f"{'common' if key.count('.') == 1 else 'own'} key, {'shifts' if shifts else 'no shifts'}"
                yield Case(
                    kind, "GGUF projectors", variant, truth, {tower: truth}, dict(_tower(letter, shifts)),
                    metadata | {key: kind},
                )  # fmt: skip
        if kind == "internvl":
            size = {"clip.vision.embedding_length": 3200, "clip.vision.block_count": 45, "clip.projector_type": kind}
            yield Case(
                kind, "GGUF projectors", "InternViT-6B", "RMSNorm", {}, dict(_tower("v", False)), metadata | size
            )


def _is_audio(kind: str, row: Json) -> bool:
    words = ("whisper", "conformer", "gemma4a", "gemma4ua", "audio", "parakeet", "tts", "spkenc", "qwen3a", "speech")
    return kind.endswith("note_a") or any(w in f"{kind} {row.get('file')}" for w in words)


def _tower(letter: str, shifts: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    for block in range(_BLOCKS):
        for leaf, shape in (
            ("attn_q", (_WIDTH, _WIDTH)), ("attn_out", (_WIDTH, _WIDTH)),
            ("ffn_up", (_HIDDEN, _WIDTH)), ("ffn_down", (_WIDTH, _HIDDEN)),
        ):  # fmt: skip
            yield f"{letter}.blk.{block}.{leaf}.weight", shape
        for leaf in ("ln1", "ln2"):
            yield f"{letter}.blk.{block}.{leaf}.weight", (_WIDTH,)
            if shifts:
                yield f"{letter}.blk.{block}.{leaf}.bias", (_WIDTH,)
    yield f"{letter}.post_ln.weight", (_WIDTH,)
    yield "mm.0.weight", (2 * _WIDTH, _WIDTH)


# --- transformers ------------------------------------------------------------------------------------------------


def transformers(table: Json) -> Iterator[Case]:
    """Every model type that was built: with its configuration, without it, and with names replaced by numbers."""
    for name, model in table["models"].items():
        truth = word(model.get("residual"))
        if model["status"] != "ok" or truth is None:
            continue
        towers = {tower: word(part["label"]) for tower, part in model["components"].items()}
        components = {tower: label for tower, label in towers.items() if label is not None}
        config: dict[str, Any] = {"model_type": name, "architectures": [model["model_class"]]}
        for key, value in (model["config_norm_keys"] or {}).items():
            part, _, leaf = key.rpartition(".")
            (config.setdefault(part, {}) if part else config)[leaf] = value
        case = Case(name, "transformers", "with config.json", truth, components, model_tensors(model), config=config)
        yield case
        yield Case(name, "transformers", "without config.json", truth, components, case.tensors)
        yield case.numbered()


def model_tensors(model: Json) -> Shapes:
    """The norms of a model type under their real names, and plausible matrices around them."""
    tensors: dict[str, tuple[int, ...]] = {}
    blocks: dict[str, int] = {}
    embedded: set[int] = set()
    images = all(norm["kind"] in ("GroupNorm", "BatchNorm") for norm in model["norms"])
    for norm in model["norms"]:
        shape = tuple(norm["weight_shape"] or ())
        path: str = norm["path"]
        width = max(shape, default=0) or (model["hidden_size"] or 0)
        if norm["role"] in ("block", "conv/other") and "N" in path.split(".") and width:
            prefix = path[: _end_of_block(path)]
            blocks[prefix] = max(width, blocks.get(prefix, 0))
        if norm["kind"] == "BatchNorm" and width:
            tensors |= _expand(f"{path}.running_mean", (width,), "N")
            tensors |= _expand(f"{path}.running_var", (width,), "N")
            tensors |= _expand(f"{path}.conv_before.weight", (width, width, 3, 3), "N")
        if norm["role"] == "final" and width and width not in embedded:
            embedded.add(width)
            tensors[".".join([*path.split(".")[:-1], "embed_tokens", "weight"])] = (_VOCABULARY, width)
        if not norm["parametric"] or not shape:
            continue
        tensors |= _expand(f"{path}.{norm['weight_name'] or 'weight'}", shape, "N")
        if norm["has_bias"]:
            tensors |= _expand(f"{path}.bias", shape, "N")
    for prefix, width in blocks.items():
        inside = [name for name in tensors if name.startswith(prefix.replace("N", "0") + ".")]
        if len(inside) == 1 and not inside[0].endswith("input_layernorm.weight"):
            continue  # a mixer block, or half of a block: no attention beside an MLP
        for leaf, size in (
            ("self_attn.q_proj", (width, width)), ("self_attn.o_proj", (width, width)),
            ("mlp.up_proj", (3 * width, width)), ("mlp.down_proj", (width, 3 * width)),
        ):  # fmt: skip
            tensors |= _expand(f"{prefix}.{leaf}.weight", (*size, 1, 1) if images else size, "N")
    return tensors


def _end_of_block(path: str) -> int:
    """Position after the last number of a path."""
    segments = path.split(".")
    last = len(segments) - 1 - segments[::-1].index("N")
    return len(".".join(segments[: last + 1]))


def _expand(name: str, shape: tuple[int, ...], number: str) -> dict[str, tuple[int, ...]]:
    """A name with its numbers filled in: a few blocks, two of everything inside them."""
    segments = name.split(".")
    at = [i for i, segment in enumerate(segments) if segment == number]
    ranges = [range(_BLOCKS if i == 0 else 2) for i in range(len(at))]
    expanded = {}
    for numbers in itertools.product(*ranges):
        for position, value in zip(at, numbers, strict=True):
            segments[position] = str(value)
        expanded[".".join(segments)] = shape
    return expanded
