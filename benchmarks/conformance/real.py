"""Real headers: model types of transformers built on the meta device, which costs no memory and no weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .cases import Case


def headers(cases: Iterator[Case]) -> Iterator[Case]:
    """Replace the tensors and the configuration of cases by those of the real default model, where it can be built.

    Args:
        cases: with and without a configuration, and numbered, of one model type after the other.
    """
    built: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]] | None] = {}
    for case in cases:
        if case.group != "transformers":
            yield case
            continue
        if case.name not in built:
            built = {case.name: _build(case.name, case.config or {})}
        found = built[case.name]
        if found is None:
            continue
        tensors, config = found
        real = replace(case, group="real headers", tensors=tensors, config=config)
        yield real.numbered() if "numbers" in case.variant else real if case.config else replace(real, config=None)


def _build(model_type: str, config: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]] | None:
    """Names and shapes of the default model, and its configuration; None if transformers refuses to build it."""
    import torch
    import transformers
    from transformers.initialization import no_init_weights

    try:
        settings = transformers.CONFIG_MAPPING[model_type]()
        with torch.device("meta"), no_init_weights():
            model = getattr(transformers, config["architectures"][0])(settings)
        written = json.loads(settings.to_json_string(use_diff=False))
    except Exception:  # noqa: BLE001 - whatever a default configuration lacks; the table's norms judge such a type
        return None
    tensors = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return tensors, {**written, "architectures": config["architectures"]}
