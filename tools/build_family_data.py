"""Rebuild src/normsniff/data/families.json from the two reference tables.

Usage: python tools/build_family_data.py gguf_arch_norms.json transformers_norms.json --released 2026-11

The first table was made from the source of llama.cpp (loader, graph and converter of every
architecture), the second by running every norm module of every model type that transformers builds
from its default configuration. Only what normsniff uses is kept. The result depends on nothing but
the arguments.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

KINDS = ("LayerNorm", "RMSNorm")
STREAM_ROLES = ("block", "final", "embedding")
Json = dict[str, Any]


def label(word: str | None) -> str:
    """A reference label in the words of the record: LayerNorm, RMSNorm, mixed, none, undetermined."""
    if word is None:
        return "undetermined"
    if word in (*KINDS, "mixed", "none"):
        return word
    found = {kind for kind in KINDS if kind in word}
    return {0: "none", 1: found.copy().pop() if found else "none", 2: "mixed"}[len(found)]


def compact(row: Json) -> Json:
    """Drop what says nothing."""
    return {key: value for key, value in row.items() if value not in (None, "", {}, [])}


# --- llama.cpp ---------------------------------------------------------------------------------------------


def gguf_row(arch: Json) -> Json:
    """One architecture of llama.cpp."""
    residual = arch["residual_norm"]
    kind = "by-key" if residual == "by_key" else "by-projector" if residual == "by_projector" else label(residual)
    inner = {
        member.replace("indexer_", "indexer."): word
        for member, word in arch["sub_norms"].items()
        if word in KINDS and word != kind and not member.startswith("(")
    }
    bias = arch["residual_bias"]
    transform = arch["weight_transform_by_converter"]
    return compact(
        {
            "norm": kind,
            "shift": {"required": "always", "none": "never", "optional": "sometimes"}.get(bias, "unknown"),
            "parametric": None if arch["parametric"] else False,
            "inner": inner,
            "baked": "" if transform.startswith("none") else transform,
            "note": arch.get("note", ""),
        }
    )


def projector_row(projector: Json) -> Json:
    """Tower labels are sentences: ``"LayerNorm tower, RMSNorm merger"``. The tower comes first, except for 'X + Y'."""
    text = projector.get("tower")
    if not text or "unsupported" in text:
        return compact({"norm": "undetermined", "note": text or ""})
    if "InternViT-6B" in text:
        return {"norm": "by-size", "note": text}
    towers = re.split(r",|\(", text)[0]
    return compact({"norm": label(towers), "note": text if text not in KINDS else ""})


def hf_classes(archs: Json) -> dict[str, str]:
    """Hugging Face class -> llama.cpp architecture, where all converters agree on the norm."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, arch in archs.items():
        for converter in arch["converter"] or ():
            for cls in converter["hf_architectures"] if name != "clip" else ():
                found[cls].append(name)
    return {
        cls: names[0] for cls, names in sorted(found.items()) if len({archs[n]["residual_norm"] for n in names}) == 1
    }


# --- transformers ------------------------------------------------------------------------------------------


def zero_centred(norms: list[Json]) -> tuple[list[str], list[str]]:
    """Path endings of the norms that store γ - 1, and of those that do not; the longer ending wins."""
    affine = [n for n in norms if n["kind"] in KINDS and n["parametric"]]
    stored = [n["path"] for n in affine if n["zero_centred"]]
    if not stored:
        return [], []
    leaves = {path.rpartition(".")[2] for path in stored}
    plain = set()
    for norm in affine:
        path = norm["path"]
        if not norm["zero_centred"]:
            leaf = path.rpartition(".")[2]
            plain.add(".".join(path.split(".")[-2:]) if leaf in leaves else leaf)
    return sorted(leaves), sorted(plain)


def epsilon(model: Json) -> float | None:
    """The epsilon of the main stream's norms in the default configuration, where all have the same."""
    found = {
        norm["eps"]
        for norm in model["norms"]
        if norm["component"] == model["residual_component"] and norm["role"] in STREAM_ROLES and norm["kind"] in KINDS
    }
    return found.pop() if len(found) == 1 else None


def model_row(model: Json) -> Json:
    """One model type of transformers."""
    if model["status"] != "ok":
        manual = model.get("manual_residual")
        return compact({"norm": label(manual), "note": model.get("manual_note", "")}) if manual else {}
    residual = label(model["residual"])
    components = {name: label(part["label"]) for name, part in model["components"].items()}
    zero, plain = zero_centred(model["norms"])
    inner: dict[str, str] = {}
    for norm in model["norms"]:
        leaf = ".".join(norm["path"].split(".")[-2:])
        if norm["kind"] in KINDS and norm["kind"] != components.get(norm["component"]):
            inner[leaf] = norm["kind"]
    own = model["residual"]
    return compact(
        {
            "norm": residual,
            "components": components if len(set(components.values())) > 1 else None,
            "shift": {"all": "always", "none": "never", "some": "sometimes"}.get(model["has_bias"]),
            "parametric": False if model["parametric"] == "none" else None,
            "zero": zero,
            "plain": plain,
            "inner": inner,
            "epsilon": epsilon(model),
            "note": own if residual == "none" and own != "none" else "",
        }
    )


def family(model_type: str) -> str:
    """Model types that share their code share the start of their name; they are one observation, not many."""
    match = re.match(r"[a-z]+", model_type)
    return match.group() if match else model_type


def tally(observations: set[tuple[str, str, str]]) -> dict[str, dict[str, int]]:
    """(family, key, kind) triples, each counted once -> {key: {kind: number of families}}."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, key, kind in observations:
        counts[key][kind] += 1
    return {key: dict(sorted(counts[key].items())) for key in sorted(counts)}


def count_layouts(models: Json) -> Json:
    """How often names of keys and modules go with a kind of norm, over the main residual streams."""
    eps, leaves, shifts = set(), set(), set()
    for name, model in models.items():
        residual = model.get("residual")
        if residual not in KINDS:
            continue
        for key, value in (model["config_norm_keys"] or {}).items():
            where, _, last = key.rpartition(".")
            of_stream = "norm" in last and "eps" in last and not re.search("batch|group|adapter|conv", last)
            if of_stream and value is not None and where in ("", "text_config"):
                eps.add((family(name), last, residual))
        for norm in model["norms"]:
            if norm["component"] != model["residual_component"] or norm["role"] not in STREAM_ROLES:
                continue
            if norm["kind"] in KINDS:
                leaves.add((family(name), norm["path"].rpartition(".")[2], norm["kind"]))
                if norm["parametric"]:
                    shifts.add((family(name), "present" if norm["has_bias"] else "absent", norm["kind"]))
    return {"eps_key": tally(eps), "leaf_name": tally(leaves), "shift": tally(shifts)}


def build(gguf: Json, transformers: Json, released: str) -> Json:
    """The whole data file."""
    models = {name: row for name, model in transformers["models"].items() if (row := model_row(model))}
    date = re.search(r"\d{4}-\d\d-\d\d", gguf["meta"]["source"])
    return {
        "gguf_source": "llama.cpp " + gguf["meta"]["source"].split("@")[1][:9],
        "gguf_date": date.group() if date else "",
        "transformers_source": f"transformers {transformers['meta']['transformers']}",
        "transformers_date": released,
        "gguf": {name: gguf_row(arch) for name, arch in gguf["archs"].items()},
        "projectors": {name: projector_row(row) for name, row in gguf["clip_projectors"].items()},
        "hf_classes": hf_classes(gguf["archs"]),
        "transformers": models,
        "counts": count_layouts(transformers["models"]),
    }


def main() -> None:
    """Read the two tables, write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="gguf_arch_norms.json")
    parser.add_argument("transformers", type=Path, help="transformers_norms.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/normsniff/data/families.json")
    parser.add_argument("--released", default="", help="release month of that transformers, which its table lacks")
    arguments = parser.parse_args()
    gguf, transformers = (
        json.loads(path.read_text(encoding="utf-8")) for path in (arguments.gguf, arguments.transformers)
    )
    data = build(gguf, transformers, arguments.released)
    lines = []
    for key, value in data.items():  # one row a line: small, and a change shows as a readable diff
        if isinstance(value, dict):
            rows = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}:{{\n{rows}\n}}")
        else:
            lines.append(f"{json.dumps(key)}:{json.dumps(value)}")
    arguments.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
