"""Which runs to make. Every factor goes through its levels in shuffled blocks, so that any prefix is balanced."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from .families import FAMILIES
from .negatives import FIRST_NEGATIVES, NEGATIVES
from .texts import CHARACTERS, PAIRS

SEED = 20261123

FACTORS: dict[str, tuple[Any, ...]] = {
    "norm": (
        "ln", "rms", "ln-noshift", "rms-zero", "ln", "rms", "ln-bare", "rms-bare", "ln-zero", "rms", "ln", "rms",
        "none", "ln-noshift", "rms", "ln", "rms-zero", "dyt",
    ),
    "placement": ("pre", "post", "sandwich", "olmo2", "parallel", "pre", "post", "pre"),
    "biases": (True, False),
    "glu": (True, False),
    "activation": ("gelu", "silu", "relu", "gelu", "silu", "relu2", "tanh"),
    "tied": (True, False),
    "positions": ("learned", "rotary", "none"),
    "qk_norm": (False, False, False, True),
    "experts": (0, 0, 0, 0, 0, 2, 4),
    "kind": ("decoder", "decoder", "encoder", "decoder", "vision"),
    "d": (48, 64, 64, 80, 96, 96, 128, 160),
    "layers": (2, 3, 4),
    "wide": (2, 3, 4),
    "grouped": (False, True),
    "optimiser": ("adamw", "adam", "sgd", "adamw", "muon", "lion", "adamw", "adafactor"),
    "decay": (0.0, 0.01, 0.1, 0.3),
    "decay_all": (True, False),
    "rate": (0.4, 0.7, 1.0, 1.0, 1.5, 2.5),
    "beta2": (0.9, 0.95, 0.99, 0.999),
    "init": ("normal:0.02", "normal:0.006", "normal:0.02", "xavier", "normal:0.05", "orthogonal"),
    "depth_scaled": (False, True),
    "rows": (4, 8, 8, 16),
    "length": (32, 48),
    "steps": (300, 400, 600, 400, 300, 1000),
    "schedule": ("constant", "cosine"),
    "dropout": (0.0, 0.0, 0.1),
    "data": ("python", "english", "c", "synthetic"),
    "images": ("gratings", "digits"),
    "vocabulary": (CHARACTERS, CHARACTERS, PAIRS),
    "bf16": (False, False, False, False, True),
    "lora": (False, False, False, True),
    "finetune": (False, False, True),
}  # fmt: skip
_SHORTENED = 32
"""From this run on, wide models train for fewer steps: the machine was slower than the plan assumed."""
_SMALLER = 49
"""From this run on, batches are smaller too."""
_LONGER = 156
"""From this run on, models are small and train for longer: few of the others get far from their initialisation."""
_FIRST_FAMILIES = tuple(FAMILIES)[:28]
"""Those that there were."""
_SOURCES = ("own", "real", "own", "own", "real", "other", "own", "real", "own", "own", "real", "own")

SECOND = 1000
"""First number of the second part, made after the first had been judged: small models, trained for longer, more of what
the first part left unanswered or wrong (RMSNorm, odd placements, encoders, classes with few runs)."""
_SECOND_FACTORS: dict[str, tuple[Any, ...]] = {
    **FACTORS,
    "norm": ("rms", "rms-zero", "ln", "rms", "rms-bare", "ln-noshift", "rms", "rms-zero", "ln-zero", "rms", "ln", "dyt",
             "ln-bare", "rms-bare"),
    "placement": ("sandwich", "pre", "olmo2", "post", "sandwich", "pre", "olmo2", "post", "parallel", "pre"),
    "kind": ("decoder", "encoder", "decoder", "vision", "decoder"),
    "experts": (0, 0, 0, 0, 2),
    "d": (48, 64, 64, 80),
    "rate": (0.7, 1.0, 1.0, 1.5),
    "rows": (4, 8),
    "length": (32,),
    "steps": (1000, 1500, 1200, 2000),
    "vocabulary": (CHARACTERS, CHARACTERS, CHARACTERS, PAIRS),
}  # fmt: skip
_SECOND_FAMILIES = (
    "t5", "qwen2", "aimv2", "gemma2", "bart", "olmo2", "smollm3", "bert", "t5gemma", "qwen3", "pixtral", "stablelm",
    "eurobert", "granite", "vit", "umt5", "gemma3", "opt", "distilbert", "phi3", "modernbert", "gpt_neox", "mistral",
    "olmo", "mixtral",
)  # fmt: skip
_SECOND_SOURCES = ("own", "real", "own", "real", "own", "real", "own", "real", "own", "other")

THIRD = 2000
"""First number of the third part, drawn up for the shadow of the learned part: what the others lack. Networks without a
norm or with another one, files of which a part is normalised, today's recipes, sound, a few wide and long runs."""
_THIRD_FACTORS: dict[str, tuple[Any, ...]] = {
    **FACTORS,
    "norm": ("rms", "none", "ln", "rms", "dyt", "ln-noshift", "rms-zero", "derf", "ln", "rms", "group", "ln-zero",
             "rms", "ln", "none", "rms-bare", "ln-bare", "dyt", "rms", "ln-noshift"),
    "placement": ("pre", "sandwich", "partial", "pre", "post", "deepnorm", "pre", "olmo2", "ngpt", "parallel"),
    "kind": ("decoder", "encoder", "decoder", "vision", "decoder", "audio", "decoder"),
    "experts": (0, 0, 0, 2),
    "recurrent": (False, False, False, True),
    "d": (48, 64, 64, 80, 96, 64, 128),
    "optimiser": ("adamw", "muon", "adamw", "muon", "adamw", "lion", "nadam", "sgd", "muon", "adafactor", "rmsprop"),
    "mup": (False, False, True),
    "rate": (0.7, 1.0, 1.0, 1.5),
    "init": ("normal:0.02", "zero", "fan-in", "normal:0.006", "xavier", "fan-in", "normal:0.05"),
    "rows": (4, 8),
    "length": (32,),
    "steps": (600, 1000, 1500, 1000, 2000, 400),
    "schedule": ("cosine", "cosine", "constant"),
    "data": ("python", "english", "c"),
    "lora": (False, True),
    "finetune": (False, True),
}  # fmt: skip
_THIRD_FAMILIES = (
    "nemotron", "glm", "roberta", "bamba", "poolformer", "codegen", "qwen3_moe", "dinov2", "arcee", "electra", "llama",
    "gpt_neo", "seed_oss", "deit", "helium", "persimmon", "bitnet", "deberta", "falcon_h1", "mpt", "ernie4_5", "gpt2",
    "cohere2", "diffllama", "albert", "qwen2", "convnext", "gemma3",
)  # fmt: skip
_THIRD_SOURCES = ("own", "own", "real", "own", "own", "real", "own", "other", "real", "own")
_LONG, _WIDE = (7, 5000), (17, (256, 384, 512))
"""Of 25 runs, the one that trains for 5,000 steps, and the one that is so wide."""


@dataclass(frozen=True)
class Run:
    """One training run: what is trained (source, name, truth), how, and every switch of the plan."""

    index: int
    source: str
    name: str
    truth: str
    kind: str
    placement: str
    norm: str
    d: int
    layers: int
    steps: int
    levels: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """Return all hyper-parameters in one flat mapping."""
        flat = asdict(self)
        levels = flat.pop("levels")
        return {**{k: v for k, v in levels.items() if k not in flat}, **flat}


@lru_cache(maxsize=1)
def plan(runs: int = 400) -> tuple[Run, ...]:
    """Return the runs in order; the n-th does not depend on how many are asked for."""
    columns = {name: _column(name, levels, 400) for name, levels in FACTORS.items()}
    counters = {"own": 0, "real": 0, "other": 0}
    found = []
    for index in range(runs):
        source = _SOURCES[index % len(_SOURCES)]
        nth = counters[source]
        counters[source] += 1
        levels = {name: column[index] for name, column in columns.items()}
        found.append(_run(index, source, nth, levels))
    return tuple(found)


@lru_cache(maxsize=1)
def second(runs: int = 200) -> tuple[Run, ...]:
    """Return the second part in order, numbered from `SECOND`; any first part of it is balanced, too."""
    columns = {name: _column(f"second/{name}", levels, 200) for name, levels in _SECOND_FACTORS.items()}
    counters = Counter[str]()
    found = []
    for nth in range(runs):
        source = _SECOND_SOURCES[nth % len(_SECOND_SOURCES)]
        count = counters[source]
        counters[source] += 1
        own = ("norm", "placement", "kind")  # counted apart: the number runs over all sources, and would skip levels
        levels = {name: column[count if name in own else nth] for name, column in columns.items()}
        names = {"own": ("own",), "real": _SECOND_FAMILIES, "other": FIRST_NEGATIVES}[source]
        name = names[count % len(names)]
        found.append(_described(SECOND + nth, source, name, levels["d"], levels["steps"], levels))
    return tuple(found)


@lru_cache(maxsize=1)
def third(runs: int = 400) -> tuple[Run, ...]:
    """Return the third part in order, numbered from `THIRD`; any first part of it is balanced, too."""
    columns = {name: _column(f"third/{name}", levels, 400) for name, levels in _THIRD_FACTORS.items()}
    negatives = random.Random(f"{SEED}/third/other").sample(tuple(NEGATIVES), len(NEGATIVES))  # noqa: S311
    counters = Counter[str]()
    found = []
    for nth in range(runs):
        source = _THIRD_SOURCES[nth % len(_THIRD_SOURCES)]
        count = counters[source]
        counters[source] += 1
        own = ("norm", "placement", "kind")
        levels = {name: column[count if name in own else nth] for name, column in columns.items()}
        if levels["placement"] == "ngpt":
            levels |= {"norm": "l2", "biases": False}
        levels["recurrent"] &= levels["kind"] == "decoder"
        d, steps = levels["d"], levels["steps"]
        if nth % 25 == _LONG[0]:
            d, steps, levels["rows"] = 48, _LONG[1], 4
        elif nth % 25 == _WIDE[0]:
            d, steps, levels["rows"], levels["layers"] = _WIDE[1][nth // 25 % 3], 300, 4, 2
        names = {"own": ("own",), "real": _THIRD_FAMILIES, "other": tuple(negatives)}[source]
        found.append(_described(THIRD + nth, source, names[count % len(names)], d, steps, levels))
    return tuple(found)


def _run(index: int, source: str, nth: int, levels: dict[str, Any]) -> Run:
    names = {"own": ("own",), "real": _FIRST_FAMILIES, "other": FIRST_NEGATIVES}[source]
    name = names[nth % len(names)]
    if source == "own":
        # The plan's own column for norms: the index runs over all sources, and would skip levels.
        levels = {**levels, "norm": _column("norm", FACTORS["norm"], 400)[nth]}
    d, steps = levels["d"], levels["steps"]
    if d == 160 or levels["experts"] == 4:
        steps = min(steps, 400)  # a run takes at most some 40 s of one core
    if index >= _SHORTENED:
        steps = min(steps, 1000 if d <= 64 else 600 if d <= 80 else 400 if d <= 128 else 300)
    if name == "mamba":
        steps = 300
    if index >= _SMALLER:
        steps = min(steps, 600 if d <= 64 else 400)
        levels = {**levels, "rows": min(levels["rows"], 4 if d >= 128 or levels["experts"] else 8)}
    if index >= _LONGER:
        d, steps = min(d, 64), 1500
        levels = {**levels, "rows": 4, "experts": 0}
    return _described(index, source, name, d, steps, levels)


def _described(index: int, source: str, name: str, d: int, steps: int, levels: dict[str, Any]) -> Run:
    norm, kind, placement = levels["norm"], levels["kind"], levels["placement"]
    if source == "own":
        truth = "LayerNorm" if norm.startswith("ln") else "RMSNorm" if norm.startswith("rms") else "neither"
        if norm in ("none", "dyt", "derf") and placement in ("post", "deepnorm"):
            placement = "pre"  # a post-norm network without its norms does not train
    elif source == "real":
        family = FAMILIES[name]
        truth, placement, norm = family.truth, family.placement, "class"
        kind = {"causal": "decoder", "masked": "encoder", "seq2seq": "encoder-decoder"}.get(
            family.objective, family.objective
        )
    else:
        truth, objective = NEGATIVES[name]
        kind, placement, norm = {"causal": "recurrent"}.get(objective, objective), "other", "other"
    return Run(index, source, name, truth, kind, placement, norm, d, levels["layers"], steps, levels)


def _column(name: str, levels: tuple[Any, ...], length: int) -> list[Any]:
    shuffle = random.Random(f"{SEED}/{name}")  # noqa: S311
    column: list[Any] = []
    while len(column) < length:
        block = list(levels)
        shuffle.shuffle(block)
        column += block
    return column
