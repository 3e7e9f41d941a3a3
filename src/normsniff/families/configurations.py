"""The family that a configuration, or a file's own keys, claim; towers and settings are read on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..record import Label
from .architectures import as_original, gguf_architecture, hf_class
from .facts import MAIN_TOWERS, Fact, from_family, from_row, label_of
from .settings import minus_one_setting, norm_setting, signature
from .tables import Final, data, rules

_DOTS = 3  # of keys that may be settings: `gpt2.norm_type`
_MAX_NESTING = 4  # sub-configurations; the deepest real one (an omni model) has two levels
# Sub-configurations, and the component whose norm they describe. The first one found is the main tower.
_PARTS: tuple[tuple[str, str], ...] = (
    ("text_config", "text"), ("llm_config", "text"), ("language_config", "text"), ("thinker_config", "text"),
    ("text_encoder", "text"), ("decoder", "decoder"), ("encoder", "encoder"),
    ("vision_config", "vision"), ("audio_config", "audio"), ("audio_encoder", "audio"), ("speech_config", "audio"),
    ("encoder_config", "audio"), ("talker_config", "talker"), ("qformer_config", "qformer"),
)  # fmt: skip


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
        fact = from_row(name, row, label_of(row.norm), source, date)
    else:
        for family in rules().family:
            if name in family.model_types:
                fact = from_family(name, family, date)
                break
        else:
            arch = gguf_architecture(name.replace("_", "-"), {}) or gguf_architecture(name, {})
            if arch is not None and arch.norm in ("LayerNorm", "RMSNorm", "mixed") and arch.disputed is None:
                fact = as_original(name, arch)
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
                fact = msgspec.structs.replace(fact, zero=("*",), plain=rule.plain, zero_in=MAIN_TOWERS)
    return fact


def from_config(config: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Fact | None:
    """The fact about the model that a config.json describes, its towers included.

    Args:
        config: the decoded file. Nothing in it is trusted.
        metadata: of the weights beside it, which tells what a converter did.
    """
    fact = _from_config(config, 0)
    if fact is None:
        return None
    fact = fact.with_main()
    if (key := minus_one_setting(config)) is not None:
        return msgspec.structs.replace(fact, zero=("*",), plain=(), zero_in=MAIN_TOWERS, baked="", note=f"{key} is set")
    if not fact.zero or metadata is None:
        return fact
    names = {name for _, part in _nested(config) for name in (part.get("model_type"),) if isinstance(name, str)}
    for rule in rules().baked:
        converted = all(metadata.get(key) == value for key, value in rule.metadata.items())
        if converted and (fact.name in rule.model_types or names & set(rule.model_types)):
            return msgspec.structs.replace(fact, zero=(), baked=f"1 was added to the scales ({rule.source})")
    return fact


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
        if not parts.keys() & set(MAIN_TOWERS):  # only the towers beside it are known
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
        fact = msgspec.structs.replace(fact, zero=main.zero, plain=main.plain, zero_in=MAIN_TOWERS)
    if len(set(components.values())) == 1 and "main" not in components:
        components = {}
    return msgspec.structs.replace(fact, components=components)


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
