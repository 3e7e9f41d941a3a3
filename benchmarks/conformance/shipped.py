"""Cases from the facts that normsniff ships, for use without the reference tables: do its parts agree with its data?"""

from __future__ import annotations

from collections.abc import Iterator

from normsniff.families.tables import FamilyRow, data

from .cases import Case, Value
from .tables import word

_WIDTH = 64


def cases() -> Iterator[Case]:
    """Every row of families.json, as a plain transformer with the norms that the row describes."""
    for arch, row in data().gguf.items():
        if row.norm in ("LayerNorm", "RMSNorm"):
            keys: dict[str, Value] = {
                "general.architecture": arch,
                f"{arch}.attention.layer_norm_epsilon": 1e-5,
                f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
            }
            yield Case(arch, "GGUF", "both keys", row.norm, {}, dict(_gguf(row)), keys)
    for kind, row in data().projectors.items():
        if row.norm in ("LayerNorm", "RMSNorm"):
            keys = {"general.architecture": "clip", "clip.projector_type": kind, "clip.has_vision_encoder": True}
            yield Case(kind, "GGUF projectors", "common key", row.norm, {}, dict(_gguf(row, "v.")), keys)
    for name, row in data().transformers.items():
        truth = word(row.norm)
        if truth in ("LayerNorm", "RMSNorm"):
            case = Case(
                name, "transformers", "with config.json", truth, {}, dict(_torch(row)), config={"model_type": name}
            )
            yield case
            yield case.numbered()


def _gguf(row: FamilyRow, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    norms = ("ln1", "ln2") if prefix else ("attn_norm", "ffn_norm")
    for block in range(2):
        yield from _norms(row, [f"{prefix}blk.{block}.{leaf}" for leaf in norms])
        yield f"{prefix}blk.{block}.attn_q.weight", (_WIDTH, _WIDTH)
        yield f"{prefix}blk.{block}.ffn_down.weight", (_WIDTH, 3 * _WIDTH)


def _torch(row: FamilyRow) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "embed_tokens.weight", (512, _WIDTH)
    for block in range(2):
        yield from _norms(row, [f"layers.{block}.{leaf}" for leaf in ("input_layernorm", "post_attention_layernorm")])
        yield f"layers.{block}.self_attn.q_proj.weight", (_WIDTH, _WIDTH)
        yield f"layers.{block}.mlp.down_proj.weight", (_WIDTH, 3 * _WIDTH)


def _norms(row: FamilyRow, names: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in names if row.parametric is not False else ():
        yield f"{name}.weight", (_WIDTH,)
        if row.shift == "always":
            yield f"{name}.bias", (_WIDTH,)
