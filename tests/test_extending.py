"""docs/extending.md does what it says: its row of an architecture decides, its words of a naming scheme are known."""

from __future__ import annotations

import json

import msgspec
import pytest

from normsniff.anatomy.names import conventions
from normsniff.anatomy.names.patterns import Namer
from normsniff.checkpoint import TensorInfo
from normsniff.families import configurations as families
from normsniff.families import tables as family_tables
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.manifest import ROOT

DOCS = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def test_the_row_of_an_architecture_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    row = msgspec.convert(json.loads(DOCS.partition("```json\n")[2].partition("```")[0]), family_tables.Family)
    (name,) = row.model_types
    monkeypatch.delitem(family_tables.data().transformers, name, raising=False)
    monkeypatch.delitem(family_tables.data().gguf, name, raising=False)
    rules = family_tables.rules()
    monkeypatch.setattr(families, "rules", lambda: msgspec.structs.replace(rules, family=[]))
    assert families.from_config({"model_type": name}) is None
    monkeypatch.setattr(families, "rules", lambda: msgspec.structs.replace(rules, family=[row]))
    fact = families.from_config({"model_type": name})
    assert fact is not None
    assert (fact.norm, fact.shift, fact.source) == (row.norm, row.shift, row.source)


def test_the_words_of_a_naming_scheme_are_known() -> None:
    nowhere = Extent(BytesSource(b""), 0, 0)
    name = Namer().parse(TensorInfo("model.layers.0.temporal_pre_norm.weight", "F32", (64,), nowhere))
    assert name is not None
    assert name.path.norm
    slot = next(slot for slot, pattern in conventions.SLOTS if pattern.search(name.path.inside))
    assert (slot, conventions.READERS["to_qkv"]) == ("pre-attention", "attention")
    assert "_fsdp_wrapped_module" in conventions.WRAPPERS
    assert conventions.TOWERS["sound_tower"] == "audio"
    for word in ("temporal_pre_norm", "to_qkv", "_fsdp_wrapped_module", "sound_tower"):
        assert word in DOCS
