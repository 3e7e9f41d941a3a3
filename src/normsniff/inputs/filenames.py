"""How hubs and training runs lay out the files of a model: what the names of files say, before any is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..formats import Format, rows

EXCLUDED = "excluded, as was asked for"
CONFIGS = ("config.json", "params.json")
# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, diffusion_pytorch_model-00001-of-00002.fp16.safetensors
_SHARD = r"(-\d{5}-of-\d{5})?"
_VARIANT = re.compile(rf"(?P<stem>[a-z_]+){_SHARD}\.[a-z]\w*{_SHARD}\.(?P<end>safetensors|bin|msgpack|h5)")

# Hugging Face Trainer and Accelerate, DeepSpeed (zero_pp_rank_0_mp_rank_00_optim_states.pt), PyTorch Lightning.
_TRAINING_STATE = re.compile(
    r"(optimizer|optim|scheduler|scaler|sampler|rng_state|random_states|training_args|trainer_state)([._-].*)?"
    r"|(\w+_)?mp_rank_\d+_optim_states\.pt|custom_checkpoint_\d+\.pkl",
    re.IGNORECASE,
)
# One file a device, each with a slice of the same matrices: Meta, DeepSpeed and Megatron, DeepSeek's converter.
_PARALLEL = re.compile(
    r"(consolidated\.|mp_rank_(?=\d\d_m)|model(?=\d+-mp))(\d{1,3})(\.pth|_model_states\.pt|-mp\d{1,3}\.safetensors)"
)
_BESIDE = (
    (re.compile(r"adapter_(model|config)\.|.*\blora\b|.*_lora[._]|pytorch_lora_weights"), "an adapter, beside"),
    (re.compile(r".*[._-]?non[._-]?ema\b"), "the weights before averaging (EMA), beside"),
    (re.compile(r"(.*[._-])?ema([._-].*)?$"), "a moving average (EMA) of the weights, beside"),
    (re.compile(r"mmproj"), "the vision or audio tower of GGUF files, beside"),
    (_VARIANT, "a variant of"),
)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a shell pattern matches a path, or the name at its end; ``*`` takes slashes, too.

    >>> [is_excluded("old/b.gguf", [pattern]) for pattern in ("*.gguf", "old/*", "old")]
    [True, True, False]
    """
    if not patterns:
        return False
    path = path.rstrip("/\\")
    name = re.split(r"[/\\]", path)[-1]
    return any(fnmatchcase(name, one) or fnmatchcase(path, one) for one in patterns)


def is_training_state(name: str) -> bool:
    """Whether a file of this name holds what a training run needs to go on: optimiser states, seeds."""
    return _TRAINING_STATE.fullmatch(name) is not None


def indexed_format(name: str) -> Format | None:
    """Return the format of the shards that an index of this name lists, or None if it is not named like one."""
    return next((row for row in rows() if row.shards and row.shards.index and name.endswith(row.shards.index)), None)


def listing_format(name: str) -> Format | None:
    """Return the format of which a file of this name lists the tensors and where they lie in files beside it."""
    for row in rows():
        if row.pieces and name in row.canonical:
            return row
        if name.endswith(row.suffixes or ("\0",)):  # of our own: no package is asked for it
            return None
    return None


def listing_of(suffix: str) -> str | None:
    """Return the name of the file that lists what lies in files with this suffix, or None for other files."""
    for row in rows():
        if row.pieces == suffix:
            return row.canonical[0]
        if suffix in row.suffixes:  # of our own: no package is asked for it
            return None
    return None


def parallel_part(name: str) -> tuple[str, int] | None:
    """Return what the tensor-parallel parts of one model have in common in their names, and this one's number.

    >>> parallel_part("consolidated.03.pth"), parallel_part("model.pth")
    (('consolidated.*.pth', 3), None)
    """
    match = _PARALLEL.fullmatch(name)
    return None if match is None else (f"{match[1]}*{match[3]}", int(match[2]))


def choose(formats: Mapping[str, str | None], *, configured: bool) -> str | None:
    """Return the file that stands for a whole directory, or None if it is a collection of files.

    Args:
        formats: of the models in the directory, by the name of the file.
        configured: a configuration lies beside them, which describes one model.
    """
    plain = {name: name for name in formats}
    if configured:  # model.fp16.safetensors counts as model.safetensors where that is absent
        plain |= {_without_variant(name): name for name in sorted(formats, reverse=True)} | plain
    for name in [name for row in rows() for name in row.canonical]:
        if name in plain and (configured or indexed_format(name) or listing_format(name)):
            return plain[name]
    described = {row.name for row in rows() if row.canonical}
    weights = [name for name, kind in formats.items() if kind in described]
    for choice in ([name for name in weights if indexed_format(name)], weights if configured else []):
        if len(choice) == 1:
            return choice[0]
    return None


def _without_variant(name: str) -> str:
    match = _VARIANT.fullmatch(name)
    return name if match is None else f"{match['stem']}.{match['end']}"


def why_beside(name: str, chosen: str) -> str:
    """Say why a file is not the model of its directory, where another one is."""
    part = parallel_part(name)
    if part is not None and part[0] == (parallel_part(chosen) or ("",))[0]:
        return f"other slices of the matrices in {chosen}, which stands for the model"
    said = next((words for pattern, words in _BESIDE if pattern.match(name)), "another file of")
    return f"{said} the model in {chosen}"
