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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from normsniff import sniff
from normsniff.anatomy import describe
from normsniff.evidence.weights import MIXED_SHARE
from normsniff.families.tables import FamilyRow, data
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from normsniff.record import EvidenceKind
from tools.build_family_data import KINDS, STREAM_ROLES, count_layouts, family

from .fit import OUT

Rule = dict[str, Any]
LAYOUT: tuple[EvidenceKind, ...] = ("layout",)
_HINTS = ("parallel", "biased-mlp", "layer-words", "group-norm", "gamma")


def rule(says: str, right: int, wrong: int, because: str) -> Rule:
    """Return one rule of the table: log-odds of LayerNorm, or of being right where it says neither norm."""
    odds = math.log((right + 1) / (wrong + 1))
    return {
        "says": says, "right": right, "wrong": wrong,
        "log_odds": round(-odds if says == "RMSNorm" else odds, 4), "because": because,
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
            "families of llama.cpp and transformers whose norms always have a shift",
        ),
        "shift absent": rule(
            "RMSNorm", len(absent["RMSNorm"]), len(absent["LayerNorm"]),
            "families whose norms have a scale and never a shift",
        ),
    }  # fmt: skip
    for key, kinds in data().counts.eps_key.items():
        found[f"epsilon {key}"] = _either(kinds, "families of transformers whose configuration has this key")
    return found


def families() -> int:
    """Return of how many families the norm of the main stream is known."""
    tables = (data().transformers, data().gguf)
    return len({family(name) for table in tables for name, row in table.items() if row.norm in KINDS})


def _either(kinds: Mapping[str, int], because: str) -> Rule:
    """Return a rule that says what most of its families have."""
    layer, rms = (kinds.get(kind, 0) for kind in KINDS)
    return rule("LayerNorm", layer, rms, because) if layer >= rms else rule("RMSNorm", rms, layer, because)


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


def probed(gguf: Mapping[str, Any], transformers: Mapping[str, Any]) -> dict[str, Rule]:
    """Count what needs the reference tables: keys of GGUF files, and the structure of real models.

    Args:
        gguf: architectures of llama.cpp, with the keys that their loaders read.
        transformers: model types, every norm module run.
    """
    found = {}
    for key in ("layer_norm_epsilon", "layer_norm_rms_epsilon"):
        loading = defaultdict(set)
        for name, arch in gguf["archs"].items():
            if any(loaded.endswith(f".attention.{key}") for loaded in arch["loader_keys"]):
                loading[arch["residual_norm"]].add(family(name))
        because = "families of llama.cpp whose loader reads this key"
        found[f"epsilon attention.{key}"] = _either({kind: len(names) for kind, names in loading.items()}, because)
    hints: dict[str, dict[str, set[str]]] = {hint: defaultdict(set) for hint in _HINTS}
    none: dict[str, set[str]] = defaultdict(set)
    for name, truth, seen, said in _structures(transformers["models"]):
        for hint in seen:
            hints[hint][truth].add(family(name))
        if said == "none":
            none["right" if truth == "none" else "wrong"].add(family(name))
    for cls, arch in _one_norm_a_block(gguf["archs"]):
        hints["parallel"][arch["residual_norm"]].add(family(_stem(cls)))
    about = {
        "parallel": "one norm for attention and MLP of a block, whether with a shift or not",
        "biased-mlp": "plain MLPs with biases beside norms without a shift",
        "layer-words": "norms without a shift whose names go with LayerNorm in all other families",
        "group-norm": "a GroupNorm beside norms without a shift",
        "gamma": "scales called gamma, and no shift",
    }
    for hint, kinds in hints.items():
        found[hint] = _either({kind: len(names) for kind, names in kinds.items()}, f"families with {about[hint]}")
    found["layout none"] = rule(
        "none", len(none["right"]), len(none["wrong"]),
        "families of transformers whose stored tensors, without a configuration, leave no room for a norm",
    )  # fmt: skip
    mixed = [truth == "mixed" for truth, share in _divided(transformers["models"]) if share >= MIXED_SHARE]
    found["layout mixed"] = rule(
        "mixed", sum(mixed), len(mixed) - sum(mixed),
        "model types of transformers (so few that each counts) some of whose norms of one stream have a shift",
    )  # fmt: skip
    return found


_NO_ATTENTION = ("mamba", "mamba2")


def _one_norm_a_block(archs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the class and the row of architectures of llama.cpp whose blocks have one norm for attention and MLP."""
    for name, arch in archs.items():
        blocks = {leaf.split(".")[2] for leaf in arch["norm_weight_tensors"] if leaf.startswith("blk.N.")}
        if blocks - {"attn_q_norm", "attn_k_norm", "attn_norm_2"} == {"attn_norm"} and name not in _NO_ATTENTION:
            yield arch["converter"][0]["hf_architectures"][0], arch


def _divided(models: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the truth of every main stream, and the smaller of the shares of its norms with a shift and without."""
    for model in models.values():
        norms: Counter[bool] = Counter()
        for norm in model.get("norms") or ():
            ours = norm["component"] == model["residual_component"] and norm["role"] in STREAM_ROLES
            if ours and norm["kind"] in KINDS and norm["parametric"]:
                norms[norm["has_bias"]] += norm["count"]
        if norms:
            yield model["residual"], min(norms[True], norms[False]) / norms.total()


def _structures(models: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield model type, truth, hints of its structure without shifts, and what its layout says without a hint."""
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
                bare = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in shifts}
                hints = describe(replace(checkpoint, tensors=bare)).hints.get(main, ())
                seen = tuple(hint for hint in hints if hint == "parallel")
            checkpoint.close()
        yield case.name, case.label, tuple(hint for hint in seen if hint in _HINTS), said


def derived(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that follow from counts: the cap of all sums, a third and a half."""
    known = families() + table["corpus"]["runs"]
    return {
        "total_cap": round(math.log(known + 1), 4),
        "zero_shifts": round(table["rules"]["shift present"]["log_odds"] / 3, 4),
        "few_shifts": round(table["rules"]["shift absent"]["log_odds"] / 2, 4),
    }


def update(table: dict[str, Any], gguf: Path | None = None, transformers: Path | None = None) -> None:
    """Replace the counted numbers of a table; those that need the reference tables stay where these are not given."""
    table["rules"] |= shipped()
    if gguf is not None and transformers is not None:
        table["rules"] |= probed(json.loads(gguf.read_text()), json.loads(transformers.read_text()))
    found = derived(table)
    table["total_cap"] = {
        "value": found["total_cap"],
        "because": f"{families()} families and {table['corpus']['runs']} runs were counted: what is rarer than one in "
        "all of them cannot have been seen.",
    }
    for name in ("zero_shifts", "few_shifts"):
        table["chosen"][name]["value"] = found[name]


def write(gguf: Path | None = None, transformers: Path | None = None) -> None:
    """Count, and update the shipped file."""
    table = json.loads(OUT.read_text())
    update(table, gguf, transformers)
    OUT.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")
