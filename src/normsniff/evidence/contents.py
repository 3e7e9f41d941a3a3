"""What a file holds that is no network: an adapter, the state of an optimiser, a vocabulary, a few tables.

Whether there is a norm cannot be seen in such a file. An adapter has its norms in its base model, and is `none` for
that reason; of the others nothing is said but what they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import NamedTuple

from ..anatomy.parts import Anatomy
from ..checkpoint import Checkpoint
from ..words import amount

_ADAPTER = re.compile(
    r"lora_?(a|b|up|down|embedding|magnitude|linear_layer)|lora\.(up|down)|hada_w\d|lokr_w\d|\.alpha$|ia3_l|b?oft_[rs]"
    r"|vera_lambda|prompt_embeddings|dora_scale|[wb]_norm$|\.diff(_b)?$",
    re.IGNORECASE,
)
_OPTIMISER = re.compile(
    r"(^|[./_])(exp_avg(_sq|_inf|_diff)?|max_exp_avg_sq|exp_inf|momentum_buffer|square_avg|grad_avg|acc_delta|slow_buffer"
    r"|exp_avg_(sq_)?(row|col|slow)|exp_avg_lr_\d)$|(^|[./])(opt_?state|optim(izer)?[./_]states?)[./]",
    re.IGNORECASE,
)
_STEERING = re.compile(r"^(direction|steering_vector|control_vector)s?[._]\d+$")

_MOSTLY = 0.8
"""Share of the tensors that makes a file an adapter: some keep a trained head or embedding beside."""

_FIRST = 8
"""Names that are looked at before all are: what is no adapter shows at once."""

_FRAGMENT = 3
"""Tables without any vector beside them: the two embeddings of an inverted text, a head, a projection."""


class Content(NamedTuple):
    """What a file holds in place of a network.

    Attributes:
        what: a word for it, a key of the rule that was counted.
        reason: one sentence.
        none: whether it has no norm for certain, so that the file is `none`.
    """

    what: str
    reason: str
    none: bool = False


def of(checkpoint: Checkpoint, anatomy: Anatomy) -> Content | None:
    """Return what a file holds that is no network; None for networks."""
    return next(_found(checkpoint, anatomy), None)


def _found(checkpoint: Checkpoint, anatomy: Anatomy) -> Iterator[Content]:
    kind = checkpoint.metadata.get("general.type")
    if kind in ("adapter", "imatrix"):
        yield Content("adapter", f"a GGUF of general.type {kind!r} holds no norm of its own", none=True)
    if checkpoint.graph is not None:
        return  # what runs is a network
    if n := _share(checkpoint.tensors, _ADAPTER.search):
        base = (checkpoint.config or {}).get("base_model_name_or_path")
        named = f" {base[:100]!r}" if isinstance(base, str) and base else ""
        said = f"{n:,} of {len(checkpoint.tensors):,} tensors are an adapter's"
        yield Content("adapter", f"{said}: the norms are in its base model{named}", none=True)
    if not anatomy.sites and not checkpoint.layers:
        yield from _fragments(checkpoint)


def _share(names: Collection[str], fits: Callable[[str], object]) -> int:
    """Return how many names fit, if most do, else 0."""
    if not any(fits(name[:300]) for name in islice(names, _FIRST)):
        return 0
    n = sum(bool(fits(name[:300])) for name in names)
    return n if n >= _MOSTLY * len(names) else 0


def _fragments(checkpoint: Checkpoint) -> Iterator[Content]:
    """Yield what a file without norms is, that is no network and no adapter."""
    tensors = checkpoint.tensors
    if any(0 in tensor.shape for tensor in tensors.values()):
        return  # the weights lie elsewhere
    arrays = {name: tensor.shape for name, tensor in tensors.items() if tensor.size > 1}  # a step is one number
    vectors = sum(map(_is_vector, arrays.values()))
    if not tensors:
        tokens = any(key.startswith("tokenizer.") for key in checkpoint.metadata)
        what = "a vocabulary" if tokens else "a header"
        yield Content("header", f"the file holds {what} and no tensor: no network in which a norm could be")
    elif n := _share(arrays, _OPTIMISER.search):
        reason = f"{n:,} of {len(arrays):,} tensors are what an optimiser remembers of a training run, no weights"
        yield Content("optimiser", reason)
    elif _share(tensors, _STEERING.search):
        reason = f"{len(tensors):,} tensors are directions to add to the stream of another model: no network"
        yield Content("steering", reason)
    elif vectors == len(arrays):
        said = amount(vectors, "vector") if vectors else "single numbers"
        yield Content("fragment", f"the file holds {said} and no matrix: no network to have a norm")
    elif not vectors and len(arrays) <= _FRAGMENT:
        said = amount(len(arrays), "table of numbers", "tables of numbers")
        yield Content("fragment", f"all that the file holds is {said}, as of embeddings: no network to have a norm")


def _is_vector(shape: tuple[int, ...]) -> bool:
    return sum(n > 1 for n in shape) == 1
