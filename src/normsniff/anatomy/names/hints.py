"""What the structure of blocks says where norms have no shift, which RMSNorm and bias-free LayerNorm share.

- `parallel`: attention and MLP behind one norm, as in Cohere and its kin (with shifts: GPT-J, Phi, Falcon), though
  PLaMo does so with RMSNorm;
- `biased-mlp`: a plain MLP with biases beside norms without: Moonshine, against ImageGPT;
- `layer-words`: norms whose names were seen in LayerNorm families only, as ModernBERT's, or one fused projection called
  Wqkv, MosaicML's word: MPT, DBRX and ModernBERT, against no RMSNorm;
- `group-norm`: a GroupNorm in the same network: Moonshine, against the audio encoder of PE;
- `gamma`: a scale called gamma or g without a beta: streaming Moonshine and half of lucidrains' networks, against the
  RMSNorm of the other half;
- `staged`: blocks in stages of different widths, as networks for images have them: CAFormer;
- `positions`: positions learned by number, which went out of use when RMSNorm came in: nanoGPT's children and Bark,
  against ImageGPT and vision transformers;
- `gated-mlp`: MLPs with a gate, which came into use with RMSNorm: SwiGLU and its kin, against Cohere's LayerNorm. The
  one hint that makes the lack of a shift say more, where the names of the norms are strange;
- `outside`: norms outside of the blocks only, where the blocks normalise without parameters: those may differ. Where
  most blocks are modulated and store no norm, norms of a few other blocks are outside, too.

How often each goes with which norm is counted by `python -m calibration counts`, in data/calibration-v1.json.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from ... import families
from ..parts import SERVING_TOWERS, Hint, Site
from . import conventions as c
from .patterns import Name

_MOST = 0.8  # of the blocks: the first one may lack a norm, the last one may differ
_GREEK = frozenset(["gamma", "g"])
_FEWEST_WORDS = 2  # one name alone is chance
_PLAIN_MLP = re.compile(r"(^|\.)(fc_?[12]|c_fc|dense_h_to_4h|dense_4h_to_h|lin[12]|linear_?[12])$")


def gated(matrices: Sequence[Name]) -> set[str]:
    """Return the towers whose MLPs have gates: by name, or both ways in as one matrix twice as long as the way out.

    An MLP holds these two matrices and nothing else: a module with convolutions or heads between them is a mixer, whose
    gate says nothing of the norm (xLSTM's LayerNorm has no shift).
    """
    towers = {name.path.tower for name in matrices if name.path.leaf in c.GATES and name.path.block}
    beside: dict[str, list[Name]] = {}
    holding: set[str] = set()
    for name in matrices:
        if name.path.block and name.path.tower not in towers:
            parent = name.module.rpartition(".")[0]
            beside.setdefault(parent, []).append(name)
            holding.add(parent.rpartition(".")[0])
    for parent, pair in beside.items():
        if len(pair) == 2 and parent not in holding and all(len(name.tensor.shape) == 2 for name in pair):
            out, into = sorted((name.tensor.shape for name in pair), key=math.prod)
            if into in ((2 * out[1], out[0]), (out[1], 2 * out[0])):
                towers.add(pair[0].path.tower)
    return towers


def find(
    names: Sequence[Name],
    sites: Sequence[Site],
    places: Mapping[tuple[str, str], set[str]],
    biased: Iterable[tuple[str, Name]],
    fused: Collection[str],
    gated: Collection[str],
    numbered: Collection[str],
    modulated: Collection[tuple[str, str]],
    *,
    group_norm: bool,
) -> dict[str, tuple[Hint, ...]]:
    """Return the hints of every component whose blocks have norms, none with a shift, or have none at all.

    Args:
        names: of the norms, one a site.
        sites: the norms.
        places: what the matrices of a block read for (``attention``, ``mlp``), by component and path of the block.
        biased: component and name of the modules that store a bias and are no norms.
        fused: components with a projection called Wqkv.
        gated: components with a gate in their MLPs.
        numbered: components with an embedding of positions.
        modulated: components and blocks in which a matrix makes scales and shifts for their norms.
        group_norm: there is a GroupNorm, in no tower that serves another one.
    """
    blocks: dict[str, dict[str, list[Site]]] = defaultdict(lambda: defaultdict(list))
    words: dict[str, set[str]] = defaultdict(set)
    shifted, gammas = set(), set()
    for name, site in zip(names, sites, strict=True):
        if site.role == "stream" and site.shift is not None:
            shifted.add(site.component)
        if name.block and site.role != "query-key":
            blocks[site.component][name.block].append(site)
            if site.role == "stream":
                words[site.component].add(name.path.leaf)
                if name.path.parameter in _GREEK:
                    gammas.add(site.component)
    plain = {component for component, name in biased if name.path.block and _PLAIN_MLP.search(name.path.text)}
    found: dict[str, tuple[Hint, ...]] = {}
    for component in {site.component for site in sites if site.role == "stream"} - set(blocks):
        if sum(tower == component for tower, _ in places) > 1:
            found[component] = ("outside",)
    for component, inside in blocks.items():
        if len({path for tower, path in modulated if tower == component and path not in inside}) > len(inside):
            found[component] = ("outside",)  # norms of the blocks before: those of most blocks store nothing
            continue
        if component in shifted:
            continue
        alone = [
            path
            for path, norms in inside.items()
            if len(norms) == 1 and _feeds_both(norms[0], places.get((component, path), set()))
        ]
        seen: tuple[tuple[Hint, bool], ...] = (
            ("parallel", len(alone) >= _MOST * len(inside)),
            ("biased-mlp", component in plain),
            ("layer-words", component in fused or _of_layer_norms(words[component])),
            ("group-norm", group_norm and component not in SERVING_TOWERS),
            ("gamma", component in gammas),
            ("positions", component in numbered),
            ("staged", len({site.width for norms in inside.values() for site in norms if site.role == "stream"}) > 1),
            ("gated-mlp", component in gated),
        )
        found[component] = tuple(hint for hint, there in seen if there)
    return found


def _feeds_both(site: Site, places: set[str]) -> bool:
    """Whether the only norm of a block serves attention and MLP: by its readers, or by its name where none is there."""
    return places >= {"attention", "mlp"} or (not places and site.name.endswith("input_layernorm"))


def _of_layer_norms(words: set[str]) -> bool:
    counts = families.counts().leaf_name
    kinds = [counts[word] for word in words if word in counts]
    only = sum("RMSNorm" not in kind for kind in kinds)
    return only >= _FEWEST_WORDS and all(kind.get("LayerNorm", 0) >= kind.get("RMSNorm", 0) for kind in kinds)
