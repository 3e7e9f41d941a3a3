"""Declared and layout evidence: how often each rule was right, over the families of which the norm is known.

A rule that was right n times and wrong m times gets the log-odds ln((n + 1)/(m + 1)). Model types that share the start
of their name share their code, and count once. Some counts need nothing but the facts that are shipped; the others need
the two reference tables, and transformers to build the models on its meta device.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from normsniff import sniff
from normsniff.anatomy import describe
from normsniff.evidence.weights import MIXED_SHARE
from normsniff.families.tables import FamilyRow, data
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from tools.build_family_data import KINDS, STREAM_ROLES, count_layouts, family

from .fit import OUT, save
from .kinds.count import counted as kinds_counted
from .open_world import count as outside
from .open_world.count import LAYOUT

Rule = dict[str, Any]


def rule(says: str, right: int, wrong: int, because: str, beyond: tuple[int, int] = (0, 0)) -> Rule:
    """Return one rule of the table: log-odds of LayerNorm, or of being right where it says neither norm.

    Args:
        says: a label.
        right: how often that is so, in families of transformers and llama.cpp.
        wrong: how often it is not.
        because: what was counted.
        beyond: right and wrong in code bases outside of these.
    """
    right, wrong = right + beyond[0], wrong + beyond[1]
    odds = math.log((right + 1) / (wrong + 1))
    return {
        "says": says, "right": right, "wrong": wrong,
        "log_odds": round(-odds if says == "RMSNorm" else odds, 4), "because": because, "outside": list(beyond),
    }  # fmt: skip


def shipped() -> dict[str, Rule]:
    """Count what families.json alone can tell."""
    agree, differ = _agreement()
    present, absent = _shifts("always"), _shifts("never")
    found = {
        "architecture": rule(
            "as named", agree, differ,
            "architectures that llama.cpp and transformers both know: both give them the same norm, or not",
        ),
        "shift present": rule(
            "LayerNorm", len(present["LayerNorm"]), len(present["RMSNorm"]),
            f"families of llama.cpp and transformers whose norms always have a shift, {_BEYOND}",
            _beyond(outside.shifts("present"), "LayerNorm"),
        ),
        "shift absent": rule(
            "RMSNorm", len(absent["RMSNorm"]), len(absent["LayerNorm"]),
            f"families of llama.cpp and transformers whose norms have a scale and never a shift, {_BEYOND}",
            _beyond(outside.shifts("absent"), "RMSNorm"),
        ),
    }  # fmt: skip
    for name, (says, by, because) in _MADE.items():
        found[name] = rule(says, *kinds_counted(name, by), because)
    for key, kinds in data().counts.eps_key.items():
        found[f"epsilon {key}"] = _either(kinds, "families of transformers whose configuration has this key")
    return found


_MADE: dict[str, tuple[str, Literal["name", "kind"], str]] = {
    "computed none": (
        "none", "name", "made networks of every kind whose graph or list of layers was understood and has no norm",
    ),
    "computed mixed": (
        "mixed", "name", "made networks with both norms on one stream, or one in the encoder and one in the decoder",
    ),
    "content none": ("none", "name", "kinds of adapters, and an importance matrix: no norm of their own"),
}  # fmt: skip
"""What is counted on the made files of `kinds` alone, and what counts once there."""
_BEYOND = "and code bases outside of these (the seen half of open_world/)"


def _beyond(found: Mapping[str, Collection[str]], says: str) -> tuple[int, int]:
    """Return how many code bases have the norm that a rule says, and how many the other one."""
    return len(found[says]), sum(len(names) for kind, names in found.items() if kind != says)


def families() -> int:
    """Return of how many families the norm of the main stream is known."""
    tables = (data().transformers, data().gguf)
    return len({family(name) for table in tables for name, row in table.items() if row.norm in KINDS})


def _either(kinds: Mapping[str, int], because: str, beyond: Mapping[str, int] | None = None) -> Rule:
    """Return a rule that says what most of its families have, those of both worlds together."""
    layer, rms = (kinds.get(kind, 0) for kind in KINDS)
    more_layer, more_rms = ((beyond or {}).get(kind, 0) for kind in KINDS)
    if layer + more_layer >= rms + more_rms:
        return rule("LayerNorm", layer, rms, because, (more_layer, more_rms))
    return rule("RMSNorm", rms, layer, because, (more_rms, more_layer))


def _agreement() -> tuple[int, int]:
    """Count the architectures that both tables name, by their own name or through a class that is converted to them."""
    known = {name.replace("_", ""): name for name, row in data().transformers.items() if row.norm in KINDS}
    named = [(arch.replace("-", ""), arch) for arch in data().gguf]
    named += [(_stem(cls), arch) for cls, arch in data().hf_classes.items()]
    same: dict[str, bool] = {}
    for word, arch in named:
        if word in known and (row := data().gguf[arch]).norm in KINDS:
            same.setdefault(known[word], row.norm == data().transformers[known[word]].norm)
    return sum(same.values()), len(same) - sum(same.values())


def _stem(cls: str) -> str:
    """Return the name of a model in that of its class: ``llama`` of ``LlamaForCausalLM``."""
    return re.split(r"For[A-Z]|Model$|LMHead", cls)[0].lower()


def _shifts(when: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    tables: tuple[Mapping[str, FamilyRow], ...] = (data().transformers, data().gguf)
    for table in tables:
        for name, row in table.items():
            if row.norm in KINDS and row.shift == when and row.parametric is not False:
                found[row.norm].add(family(name))
    return found


class Structure(NamedTuple):
    """What the layout of one model type of transformers shows without a configuration.

    Attributes:
        name: model type.
        truth: label of its main stream.
        hints: of its structure without shifts.
        said: the label of layout evidence without a hint.
        words: names of the norms of its stream, if none has a shift.
    """

    name: str
    truth: str
    hints: tuple[str, ...]
    said: str
    words: frozenset[str]


def probed(
    gguf: Mapping[str, Any],
    transformers: Mapping[str, Any],
    structures: Sequence[Structure],
    seen: Sequence[outside.Seen],
) -> dict[str, Rule]:
    """Count what needs the reference tables: keys of GGUF files, and the structure of real models.

    Args:
        gguf: architectures of llama.cpp, with the keys that their loaders read.
        transformers: model types, every norm module run.
        structures: what the layout of those types shows.
        seen: what it shows of code bases outside.
    """
    found = {}
    for key in ("layer_norm_epsilon", "layer_norm_rms_epsilon"):
        loading = defaultdict(set)
        for name, arch in gguf["archs"].items():
            if any(loaded.endswith(f".attention.{key}") for loaded in arch["loader_keys"]):
                loading[arch["residual_norm"]].add(family(name))
        because = "families of llama.cpp whose loader reads this key"
        found[f"epsilon attention.{key}"] = _either({kind: len(names) for kind, names in loading.items()}, because)
    found |= _hinted(gguf, structures, seen)
    made = {label: kinds_counted(f"layout {label}", "kind") for label in ("mixed", "none")}
    mixed = [truth == "mixed" for truth, share in _divided(transformers["models"]) if share >= MIXED_SHARE]
    found["layout mixed"] = rule(
        "mixed", sum(mixed), len(mixed) - sum(mixed),
        "model types of transformers (so few that each counts) some of whose norms of one stream have a shift, "
        f"{_BEYOND}, and kinds of made networks", _plus(_said(seen, "mixed"), made["mixed"]),
    )  # fmt: skip
    none = {right: {family(s.name) for s in structures if s.said == "none" and (s.truth == "none") is right}
            for right in (True, False)}  # fmt: skip
    found["layout none"] = rule(
        "none", len(none[True]), len(none[False]),
        f"families of transformers whose stored tensors, without a configuration, leave no room for a norm, {_BEYOND}, "
        "and kinds of made networks", _plus(_said(seen, "none"), made["none"]),
    )  # fmt: skip
    return found


def _plus(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return first[0] + second[0], first[1] + second[1]


def _said(seen: Sequence[outside.Seen], label: str) -> tuple[int, int]:
    """Return in how many code bases a label that layout gave is right, and in how many it is wrong."""
    right = {one.row.source for one in seen if one.said == label == one.row.truth}
    wrong = {one.row.source for one in seen if one.said == label != one.row.truth}
    return len(right), len(wrong)


_ABOUT = {
    "parallel": "one norm for attention and MLP of a block, whether with a shift or not",
    "biased-mlp": "plain MLPs with biases beside norms without a shift",
    "layer-words": "norms without a shift whose names go with LayerNorm in all other families",
    "group-norm": "a GroupNorm beside norms without a shift",
    "gamma": "scales called gamma or g, and no shift",
    "positions": "embeddings of positions, and norms without a shift",
    "staged": "stages of blocks of different widths, and norms without a shift",
    "gated-mlp": "gated MLPs beside norms without a shift",
}


def _hinted(gguf: Mapping[str, Any], structures: Sequence[Structure], seen: Sequence[outside.Seen]) -> dict[str, Rule]:
    """Count how often each structure without shifts goes with either norm, in both worlds."""
    hints: dict[str, dict[str, set[str]]] = {hint: defaultdict(set) for hint in _ABOUT}
    for one in structures:
        for hint in one.hints:
            hints[hint][one.truth].add(family(one.name))
    for cls, arch in _one_norm_a_block(gguf["archs"]):
        hints["parallel"][arch["residual_norm"]].add(family(_stem(cls)))
    beyond: dict[str, dict[str, set[str]]] = {hint: {kind: set() for kind in KINDS} for hint in _ABOUT}
    for other in seen:
        if other.row.truth in KINDS and other.row.shifts == "absent":
            for hint in set(other.hints) & set(_ABOUT):
                beyond[hint][other.row.truth].add(other.row.source)
    return {
        hint: _either(
            {kind: len(hints[hint][kind]) for kind in KINDS}, f"families with {about}, {_BEYOND}",
            {kind: len(names) for kind, names in beyond[hint].items()},
        )
        for hint, about in _ABOUT.items()
    }  # fmt: skip


def bare_words(
    gguf: Mapping[str, Any],
    models: Mapping[str, Any],
    structures: Sequence[Structure],
    seen: Sequence[outside.Seen],
) -> dict[str, list[int]]:
    """Count by name of a norm without a shift the families and code bases that have it in a tower, by norm."""
    using: dict[str, dict[str, set[str]]] = defaultdict(lambda: {kind: set() for kind in KINDS})
    for name, model in models.items():  # those, too, that could not be built
        for tower, part in (model.get("components") or {}).items():
            stream = list(_stream(model, tower))
            if part["label"] in KINDS and not any(norm["has_bias"] for norm in stream):
                for norm in stream:
                    word = re.sub(r"(\.N)*$", "", norm["path"]).rpartition(".")[2].lower()
                    using[word][part["label"]].add(family(name))
    for one in structures:
        if one.truth in KINDS:
            for word in one.words:
                using[word][one.truth].add(family(one.name))
    for name, arch in gguf["archs"].items():
        kind = arch["residual_norm"]
        if kind in KINDS and arch["parametric"] and arch["residual_bias"] == "none":
            for tensor in arch["norm_weight_tensors"]:
                word = tensor.split(".")[-2]
                if not word.endswith(("_q_norm", "_k_norm")):
                    using[word][kind].add(family(name))
    for other in seen:
        if other.row.truth in KINDS:
            for word in other.words:
                using[word][other.row.truth].add(other.row.source)
    return {word: [len(kinds[kind]) for kind in KINDS] for word, kinds in sorted(using.items())}


_NO_ATTENTION = ("mamba", "mamba2")


def _one_norm_a_block(archs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the class and the row of architectures of llama.cpp whose blocks have one norm for attention and MLP."""
    for name, arch in archs.items():
        blocks = {leaf.split(".")[2] for leaf in arch["norm_weight_tensors"] if leaf.startswith("blk.N.")}
        if blocks - {"attn_q_norm", "attn_k_norm", "attn_norm_2"} == {"attn_norm"} and name not in _NO_ATTENTION:
            yield arch["converter"][0]["hf_architectures"][0], arch


def _stream(model: Mapping[str, Any], tower: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the norms of the main stream of a model type, or of a tower's, that have parameters."""
    for norm in model.get("norms") or ():
        ours = norm["component"] == (tower or model["residual_component"]) and norm["role"] in STREAM_ROLES
        if ours and norm["kind"] in KINDS and norm["parametric"]:
            yield norm


def _divided(models: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the truth of every main stream, and the smaller of the shares of its norms with a shift and without."""
    for model in models.values():
        norms: Counter[bool] = Counter()
        for norm in _stream(model):
            norms[norm["has_bias"]] += norm["count"]
        if norms:
            yield model["residual"], min(norms[True], norms[False]) / norms.total()


def _structures(models: Mapping[str, Any]) -> Iterator[Structure]:
    """Yield what the layout of every model type shows that can be built."""
    from benchmarks.conformance import real, tables

    for case in real.headers(tables.transformers({"models": models})):
        if case.config is not None or "numbers" in case.variant:
            continue
        others = {name: model for name, model in models.items() if family(name) != family(case.name)}
        data().counts.leaf_name = count_layouts(others)["leaf_name"]  # the names of its own family prove nothing
        with tempfile.TemporaryDirectory() as folder:
            path = case.write(Path(folder))
            said = next((e.label for e in sniff(path, evidence=LAYOUT).evidence), "undetermined")
            checkpoint = open_source(path, Limits())
            anatomy = describe(checkpoint)
            towers = [models[case.name]["residual_component"], *anatomy.widths, "main"]
            main = next(name for name in towers if name in anatomy.widths or name == "main")
            seen = anatomy.hints.get(main, ())
            if shifts := {site.shift.name for site in anatomy.sites if site.shift is not None}:
                # Of these only the structure around the norms can be judged as if there were no shifts.
                left = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in shifts}
                hints = describe(replace(checkpoint, tensors=left)).hints.get(main, ())
                seen = tuple(hint for hint in hints if hint == "parallel")
            checkpoint.close()
        stream = [site for site in anatomy.sites if site.component == main and site.role == "stream"]
        shiftless = not any(site.shift is not None for site in stream)
        words = frozenset(site.word for site in stream if shiftless and site.word)
        yield Structure(case.name, case.label, tuple(hint for hint in seen if hint in _ABOUT), said, words)


def derived(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that follow from counts: the cap of all sums, a third and a half."""
    known = families() + table["corpus"]["judged"]
    return {
        "total_cap": round(math.log(known + 1), 4),
        "zero_shifts": round(table["rules"]["shift present"]["log_odds"] / 3, 4),
        "few_shifts": round(table["rules"]["shift absent"]["log_odds"] / 2, 4),
    }


def update(table: dict[str, Any], gguf: Path | None = None, transformers: Path | None = None) -> None:
    """Replace the counted numbers of a table; those that need the reference tables stay where these are not given."""
    table["rules"] |= shipped()
    if gguf is not None and transformers is not None:
        archs, models = json.loads(gguf.read_text()), json.loads(transformers.read_text())
        structures, seen = list(_structures(models["models"])), list(outside.seen())
        table["rules"] |= probed(archs, models, structures, seen)
        table["bare_words"] = bare_words(archs, models["models"], structures, seen)
    found = derived(table)
    table["total_cap"] = {
        "value": found["total_cap"],
        "because": f"{families()} families and {table['corpus']['judged']} runs of one of the norms were counted: what "
        "is rarer than one in all of them cannot have been seen.",
    }
    for name in ("zero_shifts", "few_shifts"):
        table["chosen"][name]["value"] = found[name]


def write(gguf: Path | None = None, transformers: Path | None = None) -> None:
    """Count, and update the shipped file."""
    table = json.loads(OUT.read_text())
    update(table, gguf, transformers)
    save(table)
