"""What is known of model families: which norm an architecture uses, wherever its name alone tells.

The facts are data: `data/families.json` is generated (tools/build_family_data.py), and
`data/family_rules.json` is written by hand for switches and exceptions. A fact speaks of a *name*;
whether the file at hand deserves that name is for the evidence to weigh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from ..record import Label
from .settings import minus_one_setting, norm_setting, signature
from .tables import Counts, Epsilon, Family, FamilyRow, Final, Shift, data, plugged_in, rules

_MAIN_TOWERS = ("main", "text", "encoder", "decoder", "talker")
_GATED = ("ssm_norm",)  # llama.cpp's name of the gated norm of linear attention, which stores γ in all families
_DOTS = 3  # of keys that may be settings: `gpt2.norm_type`
_TASK = re.compile(r"([A-Z]\w*?)(?:Text|LMHead)?(?:Model|For[A-Z][A-Za-z]*)")
"""Names of classes of transformers: a backbone and its task."""
_LONGEST_CLASS = 200  # characters: the pattern takes the square of them, and the longest known has 40
_MAX_NESTING = 4  # sub-configurations; the deepest real one (an omni model) has two levels


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one architecture or model type.

    Attributes:
        name: the architecture, model type or setting that the fact is about.
        norm: of the main residual stream; ``none`` if it uses neither (then `note` says what).
        components: towers whose norm is known, by component name; empty if there is one tower. `main` is among
            them: files differ in whether the main tower has a name.
        shift: whether its norms carry a bias.
        parametric: False if its norms store no scale, None if they do or it varies.
        zero: path endings of norms that store γ - 1; ``"*"`` stands for all.
        plain: path endings of norms that store γ all the same, and that no converter changes; the longer ending wins.
        zero_in: components that `zero` speaks of; empty for all.
        inner: path endings of norms whose kind differs from their stream's.
        epsilon: of its norms in the family's default configuration; None if unknown.
        baked: what a converter did to the scales, or "".
        scale_known: whether `zero`, where it is empty, says that γ itself is stored; not of what a setting alone tells.
        language_only: it speaks of the language model, and of no tower beside it.
        disputed: the label that another implementation of the family gives, or None.
        note: anything else that a person should know.
        source: where the fact comes from.
        date: of the source, as precisely as known.
    """

    name: str
    norm: Label
    components: dict[str, Label] = {}
    shift: Shift = "unknown"
    parametric: bool | None = None
    zero: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    zero_in: tuple[str, ...] = ()
    inner: dict[str, Label] = {}
    epsilon: float | None = None
    baked: str = ""
    scale_known: bool = True
    language_only: bool = False
    disputed: Label | None = None
    note: str = ""
    source: str = ""
    date: str = ""

    def label(self, component: str) -> Label:
        """The norm of one tower; of the main stream where the tower belongs to it; else what is not known."""
        beside = component not in _MAIN_TOWERS and (self.components or self.language_only)
        return self.components.get(component, "undetermined" if beside else self.norm)

    def inner_kind(self, path: str) -> Label | None:
        """The norm at `path` where it differs from its stream's, else None."""
        return next((kind for end, kind in self.inner.items() if f".{path}".endswith(f".{end}")), None)

    def converted(self, path: str) -> bool:
        """Whether the converter has changed the scale of the norm at `path`."""
        return bool(self.baked) and not any(f".{path}".endswith(f".{end}") for end in self.plain)

    def offset(self, path: str, component: str = "main") -> float:
        """What to add to the stored scale of the norm at `path` to get γ: 1.0 or 0.0."""
        if not self.zero or (self.zero_in and component not in self.zero_in):
            return 0.0
        tail = "." + path
        stored = max((len(end) for end in self.zero if end == "*" or tail.endswith("." + end)), default=0)
        plain = max((len(end) for end in self.plain if tail.endswith("." + end)), default=0)
        return 1.0 if stored > plain else 0.0


def epsilon_of(name: str) -> Epsilon | None:
    """The epsilon that all published models of a family have, as far as is known; None where they differ.

    Args:
        name: of a fact: an architecture or a model type.
    """
    return next((row for row in rules().epsilon if name in row.names), None)


def ends_in_norm(metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> Final | None:
    """Whose rule it is that the family has a norm behind its last block; None where that is not known.

    Args:
        metadata: the container's own keys.
        config: the configuration inside the file or beside it, if any.
    """
    classes: Any = (config or {}).get("architectures")
    listed = classes if _is_list(classes) else ()
    names: list[Any] = [data().hf_classes.get(one) for one in listed if isinstance(one, str)]
    names.append(metadata.get("general.architecture"))
    return next((row for row in rules().final for name in names if name in row.gguf), None)


def counts() -> Counts:
    """How often names go with kinds over the model types that were probed; for families that no row covers."""
    return data().counts


# --- GGUF ------------------------------------------------------------------------------------------------------


def fact_of(metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> Fact | None:
    """The fact about the family that a file claims to belong to, through its GGUF keys or its configuration.

    Args:
        metadata: the container's own keys.
        config: the configuration inside the file or beside it, if any.
    """
    architecture = metadata.get("general.architecture")
    if isinstance(architecture, str):
        prefix = f"{architecture}."
        own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.count(".") < _DOTS}
        return _as_set(gguf_architecture(architecture, metadata), norm_setting(own), {})
    fact = None
    if config is not None:
        fact = from_config(config, {key: value for key, value in metadata.items() if isinstance(value, str)})
    settings = metadata.get("settings")  # what a training run saved with its weights
    return from_config(settings) if fact is None and isinstance(settings, Mapping) else fact


def gguf_architecture(arch: str, metadata: Mapping[str, Any]) -> Fact | None:
    """The fact about ``general.architecture``, which llama.cpp fixes in code.

    Args:
        arch: its value.
        metadata: the file's keys, for the few architectures where a key decides.
    """
    row = data().gguf.get(arch)
    if row is None:
        return _from_family(arch, plugged_in()[arch]) if arch in plugged_in() else None
    if row.norm == "by-projector":
        return _projectors(metadata)
    norm: Label = "undetermined"
    if row.norm == "by-key":
        norm = "RMSNorm" if f"{arch}.attention.layer_norm_rms_epsilon" in metadata else "LayerNorm"
    else:
        norm = _label(row.norm)
    fact = _from_row(arch, row, norm, data().gguf_source, data().gguf_date)
    fact = msgspec.structs.replace(fact, language_only=True)  # ollama puts the vision tower into the same file
    if _ADDS_ONE.match(fact.baked):
        fact = msgspec.structs.replace(fact, plain=_GATED)
    for dispute in rules().disputed:
        if arch in dispute.gguf:
            fact = msgspec.structs.replace(fact, disputed=dispute.label, note=f"{dispute.note} ({dispute.source})")
    return fact


def projector(kind: str, metadata: Mapping[str, Any]) -> Fact | None:
    """The fact about the tower of an mmproj file whose projector type is `kind`."""
    row = data().projectors.get(kind)
    if row is None:
        return None
    norm = _label(row.norm)
    if row.norm == "by-size":  # InternViT-6B is the one RMSNorm tower of its family
        size = (metadata.get("clip.vision.embedding_length"), metadata.get("clip.vision.block_count"))
        norm = "RMSNorm" if size == (3200, 45) else "LayerNorm"
    return _from_row(kind, row, norm, data().gguf_source, data().gguf_date)


def _projectors(metadata: Mapping[str, Any]) -> Fact | None:
    """An mmproj file has a vision tower, an audio tower or both, each with its projector type."""
    common = metadata.get("clip.projector_type")
    towers: dict[str, Fact] = {}
    for tower in ("vision", "audio"):
        kind = metadata.get(f"clip.{tower}.projector_type")
        if kind is None and metadata.get(f"clip.has_{tower}_encoder") is True:
            kind = common
        fact = projector(kind, metadata) if isinstance(kind, str) else None
        if fact is not None:
            towers[tower] = fact
    if not towers:
        return projector(common, metadata) if isinstance(common, str) else None
    main = next(iter(towers.values()))
    return _with_main(msgspec.structs.replace(main, components={tower: fact.norm for tower, fact in towers.items()}))


# --- transformers and other configurations -----------------------------------------------------------------


def model_type(name: str, config: Mapping[str, Any] | None = None) -> Fact | None:
    """The fact about a ``model_type`` of transformers.

    Args:
        name: the model type.
        config: its own (sub-)configuration, for the few types where a value decides.
    """
    row = data().transformers.get(name)
    source, date = data().transformers_source, data().transformers_date
    fact: Fact | None = None
    if row is not None:
        fact = _from_row(name, row, _label(row.norm), source, date)
    else:
        for family in rules().family:
            if name in family.model_types:
                fact = _from_family(name, family, date)
                break
        else:
            arch = gguf_architecture(name.replace("_", "-"), {}) or gguf_architecture(name, {})
            if arch is not None and arch.norm in ("LayerNorm", "RMSNorm", "mixed") and arch.disputed is None:
                fact = _as_original(name, arch)
    for switch in rules().switch:
        if config is None or name not in switch.model_types:
            continue
        if (norm := switch.values.get(_word(config, switch.key))) is not None:
            why = f"decided by {switch.key} ({switch.source})"
            base = fact or Fact(name=name, norm=norm, source=switch.source, date=date)
            fact = msgspec.structs.replace(base, norm=norm, note=why)
    if fact is not None and not fact.zero:
        for rule in rules().zero_centred:
            if name in rule.model_types:
                fact = msgspec.structs.replace(fact, zero=("*",), plain=rule.plain, zero_in=_MAIN_TOWERS)
    return fact


def hf_class(name: str) -> Fact | None:
    """The fact about a Hugging Face class such as ``LlamaForCausalLM``, through llama.cpp's converters.

    Classes of one stem have one backbone, with a head for each task: what is known of ``RobertaModel`` holds for
    ``RobertaForCausalLM``.
    """
    arch = data().hf_classes.get(name) or _backbones().get(_stem(name) or "")
    fact = gguf_architecture(arch, {}) if arch is not None else None
    if fact is None or fact.disputed is not None or fact.norm == "undetermined":
        return None
    return _as_original(name, fact)


def _stem(name: str) -> str | None:
    """Return a class's name without its task; None where it is not named so."""
    match = _TASK.fullmatch(name) if len(name) <= _LONGEST_CLASS else None
    return None if match is None else match[1]


@cache
def _backbones() -> Mapping[str, str]:
    """Return the architectures by the stems of their classes, where all of a stem agree."""
    found: dict[str, set[str]] = {}
    for name, arch in data().hf_classes.items():
        if (stem := _stem(name)) is not None:
            found.setdefault(stem, set()).add(arch)
    return {stem: next(iter(archs)) for stem, archs in found.items() if len(archs) == 1}


def from_config(config: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Fact | None:
    """The fact about the model that a config.json describes, its towers included.

    Args:
        config: the decoded file. Nothing in it is trusted.
        metadata: of the weights beside it, which tells what a converter did.
    """
    fact = _from_config(config, 0)
    if fact is None:
        return None
    fact = _with_main(fact)
    if (key := minus_one_setting(config)) is not None:
        return msgspec.structs.replace(
            fact, zero=("*",), plain=(), zero_in=_MAIN_TOWERS, baked="", note=f"{key} is set"
        )
    if not fact.zero or metadata is None:
        return fact
    names = {name for _, part in _nested(config) for name in (part.get("model_type"),) if isinstance(name, str)}
    for rule in rules().baked:
        converted = all(metadata.get(key) == value for key, value in rule.metadata.items())
        if converted and (fact.name in rule.model_types or names & set(rule.model_types)):
            return msgspec.structs.replace(fact, zero=(), baked=f"1 was added to the scales ({rule.source})")
    return fact


# Sub-configurations, and the component whose norm they describe. The first one found is the main tower.
_PARTS: tuple[tuple[str, str], ...] = (
    ("text_config", "text"), ("llm_config", "text"), ("language_config", "text"), ("thinker_config", "text"),
    ("text_encoder", "text"), ("decoder", "decoder"), ("encoder", "encoder"),
    ("vision_config", "vision"), ("audio_config", "audio"), ("audio_encoder", "audio"), ("speech_config", "audio"),
    ("encoder_config", "audio"), ("talker_config", "talker"), ("qformer_config", "qformer"),
)  # fmt: skip


def _nested(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(component, config[key]) for key, component in _PARTS if isinstance(config.get(key), Mapping)]


def _from_config(config: Mapping[str, Any], depth: int) -> Fact | None:
    if depth > _MAX_NESTING:
        return None
    name = config.get("model_type")
    fact = model_type(name, config) if isinstance(name, str) else None
    for cls in (config.get("architectures") or ()) if fact is None and _is_list(config.get("architectures")) else ():
        fact = hf_class(cls) if isinstance(cls, str) else None
        if fact is not None:
            break
    parts: dict[str, Fact] = {}
    for component, part in _nested(config):
        found = _from_config(part, depth + 1)
        if found is not None and found.norm != "undetermined":
            parts.setdefault(component, found)
    if parts:
        fact = _assemble(fact, parts, name if isinstance(name, str) else "")
    if fact is None and (written := signature(config)) is not None:
        fact = Fact(name=written[0], norm=written[1], source="the keys of its configuration")
    return _as_set(fact, norm_setting(config), parts)


def _as_set(fact: Fact | None, setting: tuple[str, Label] | None, parts: Mapping[str, Fact]) -> Fact | None:
    """Let what a configuration sets in so many words decide over what its family does by default."""
    if setting is None or (fact is not None and (fact.norm in (setting[1], "mixed", "none") or parts)):
        return fact
    if fact is not None and setting[1] == "none":
        return fact  # of one of its parts
    key, norm = setting
    if fact is None or fact.norm == "undetermined":
        return Fact(name=f"{key}: {norm}", norm=norm, scale_known=False, source="the configuration itself")
    if key in rules().setting.flags and norm == "LayerNorm":
        return msgspec.structs.replace(fact, disputed=norm, note=f"its configuration says that {key} is false")
    note = f"{key} of its configuration says so; by default {fact.name} uses {fact.norm}"
    return Fact(
        name=fact.name, norm=norm, scale_known=False, note=note, source="the configuration itself", date=fact.date
    )


def _assemble(fact: Fact | None, parts: Mapping[str, Fact], name: str) -> Fact:
    """Join the facts about towers; what a sub-configuration says wins over the defaults of the whole."""
    main = next((parts[key] for key in ("text", "decoder") if key in parts), None)
    labels = {component: part.norm for component, part in parts.items()}
    if fact is None:
        base = main or next(iter(parts.values()))
        if not parts.keys() & set(_MAIN_TOWERS):  # only the towers beside it are known
            return Fact(
                name=name or base.name, norm="undetermined", components=labels, source=base.source, date=base.date
            )
        return msgspec.structs.replace(
            base, name=name or base.name, components=labels if len(labels) > 1 else {}, language_only=main is not None
        )
    components = {**fact.components, **labels}
    if main is None:
        return msgspec.structs.replace(fact, components=components)
    if main.norm != fact.norm and fact.norm != "mixed":  # a LLaVA around a language model that is not its default
        fact = msgspec.structs.replace(fact, norm=main.norm, shift=main.shift, parametric=main.parametric)
    if main.zero and not fact.zero:
        fact = msgspec.structs.replace(fact, zero=main.zero, plain=main.plain, zero_in=_MAIN_TOWERS)
    if len(set(components.values())) == 1 and "main" not in components:
        components = {}
    return msgspec.structs.replace(fact, components=components)


def _with_main(fact: Fact) -> Fact:
    if not fact.components or "main" in fact.components:
        return fact
    return msgspec.structs.replace(fact, components={**fact.components, "main": fact.norm})


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) < 100


def _word(config: Mapping[str, Any], key: str) -> str:
    """A configuration value as a key of a switch."""
    value = config.get(key)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "number" if isinstance(value, int | float) else value if isinstance(value, str) else ""


_ADDS_ONE = re.compile(r"\+1(\.0)? (on (every )?\*norm|as qwen3next|\(inherits)|as qwen35")


def _label(word: str) -> Label:
    return word if word in ("LayerNorm", "RMSNorm", "mixed", "none") else "undetermined"  # type: ignore[return-value]  # narrowed by the test


def _as_original(name: str, fact: Fact) -> Fact:
    """A llama.cpp fact, said of the original model: where the converter adds 1, the original stores γ - 1."""
    note = fact.note and f"from llama.cpp: {fact.note}"
    if _ADDS_ONE.match(fact.baked):
        plain, towers = ("linear_attn.norm",), _MAIN_TOWERS  # as `_GATED` is called there
        return msgspec.structs.replace(fact, name=name, baked="", note=note, zero=("*",), plain=plain, zero_in=towers)
    return msgspec.structs.replace(fact, name=name, baked="", note=note)


def _from_family(name: str, family: Family, date: str = "") -> Fact:
    return Fact(
        name=name, norm=family.norm, shift=family.shift, parametric=family.parametric, note=family.note,
        source=family.source, date=date,
    )  # fmt: skip


def _from_row(name: str, row: FamilyRow, norm: Label, source: str, date: str) -> Fact:
    return Fact(
        name=name, norm=norm, components=row.components, shift=row.shift, parametric=row.parametric, zero=row.zero,
        plain=row.plain, inner=row.inner, epsilon=row.epsilon, baked=row.baked, note=row.note, source=source, date=date,
    )  # fmt: skip
