"""Anatomy of Keras files: norm layers from the configuration or from group names, roles from the layer graph.

What a file says of its layers differs a lot: a functional configuration has classes, arguments and a graph; a
subclassed model has the class of the model and nothing else; a weights file has group names that Keras made
from classes. Each fact is taken from the best of these that is there, and a missing one stays unknown:
one variable in ``layer_normalization/vars`` may be the scale of LayerNormalization(center=False), of
LayerNormalization(rms_scaling=True), or the shift of LayerNormalization(scale=False).
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ... import meter
from ...checkpoint import Checkpoint, Layer, TensorInfo
from ...dtypes import INTEGERS
from ...formats.keras.layers import class_of, snake_case
from ..names.conventions import NORM, NOT_A_NORM, QUERY_KEY, TOWERS
from ..parts import Anatomy, Hint, Matrix, NormKind, Site, Unexplained
from .roles import Variable, role_of
from .tables import NormClass, load_tables

_SCALES, _SHIFTS = ("gamma", "scale", "weight", "g"), ("beta", "bias", "b")
_LAYER_NORM, _RMS_NORM = re.compile(r"layer_?norm|(^|_)ln(_|\d|$)"), re.compile(r"rms_?norm|(^|_)rms(_|\d|$)")

# layers that hand on their input unchanged on average: what feeds them feeds what comes after
_PASSING = (
    "dropout",
    "spatial_dropout1d",
    "stochastic_depth",
    "drop_path",
    "identity",
    "reshape",
    "cast",
    "input_layer",
)
_HOPS = 8  # of such layers in a row

_EMBEDDING = re.compile(r"embed|(^|[/_])emb([/_]|$)|(^|/)(wte|wpe|shared)$")
# norms inside a block that only pre-norm blocks of KerasHub name so, by what they are in front of
_PRE_NORMS = {
    "attention": ("_self_attention_layernorm", "pre_attention_norm", "input_layernorm"),
    "mlp": ("_feedforward_layernorm", "pre_ffw_norm", "post_attention_layernorm"),
}


def describe(checkpoint: Checkpoint) -> Anatomy | None:
    """Find the norm sites and the matrices around them.

    Args:
        checkpoint: of format ``"Keras"``.

    Returns:
        The anatomy, or None if neither layers nor names show a normaliser.
    """
    return _Reading(checkpoint).anatomy()


_TENSOR, _LAYER = 25, 40
"""Steps that a variable and a layer cost: paths are cut, groups looked up, names searched."""


class _Reading:
    """One file while it is being worked out."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.tables = load_tables()
        self.checkpoint = checkpoint
        meter.charge(
            _TENSOR * len(checkpoint.tensors) + _LAYER * len(checkpoint.layers), "joining layers and variables"
        )
        self.layers = {layer.path: layer for layer in checkpoint.layers}
        self.variables: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
        for name, tensor in checkpoint.tensors.items():
            group, _, leaf = name.rpartition("/")
            self.variables[group.removesuffix("/vars")][leaf.removesuffix(":0")] = tensor
        above = (path.split("/") for path in self.variables)
        self.groups = {"/".join(parts[:n]) for parts in above for n in range(1, len(parts) + 1)}
        self.others: Counter[str] = Counter()
        self.notes: list[str] = []
        self.unexplained: list[Unexplained] = []
        self.inputs = self._inputs()
        self.default_family = self._default_family()

    def anatomy(self) -> Anatomy | None:
        found = [site for path in self._candidates() if (site := self._site(path)) is not None]
        if not found and not self.others and not self.unexplained:
            return None
        widths = self._widths(found)
        sites = tuple(_with_role(site, widths.get(site.component)) for site in found)
        index = {site.name: i for i, site in enumerate(sites)}
        matrices = tuple(self._matrices(widths, index))
        # one variable and no class: LayerNormalization(center=False), RMSNormalization, even a shift without a scale
        open_ = {s.component for s in sites if s.role == "stream" and s.kind is None and s.shift is None}
        hints: dict[str, tuple[Hint, ...]] = dict.fromkeys(open_, ("one-variable",))
        return Anatomy(
            sites, matrices, widths, "names", tuple(self.notes), dict(self.others) or None, hints=hints,
            explained=len(sites) + self.others.total(), unexplained=tuple(self.unexplained),
        )  # fmt: skip

    # --- norm sites -------------------------------------------------------------------------------------------

    def _candidates(self) -> Iterator[str]:
        """Yield paths that may be norms: layers in their order, then groups that no layer claims."""
        yield from self.layers
        yield from (path for path in self.variables if path not in self.layers)

    def _site(self, path: str) -> Site | None:
        layer = self.layers.get(path, Layer(path, "", {}))
        variables = self.variables.get(path, {})
        snake, base = snake_case(layer.class_name), snake_case(path.rpartition("/")[2])
        if "moving_mean" in variables or snake in self.tables.others:
            self.others[self.tables.others.get(snake, "BatchNorm")] += 1
            return None
        rule = self.tables.norms.get(snake)
        word = snake or base
        if rule is None and not _is_norm_name(word) and not (not snake and {"gamma", "beta"} <= variables.keys()):
            return None
        if rule is None and not variables and layer.class_name and self._is_nobodys(layer):
            return self._without_variables(path, layer, word)
        if rule is None and (any(len(t.shape) > 1 for t in variables.values()) or not variables):
            return None  # a block or an adaptive norm, not a norm by itself
        scale, shift = _scale_and_shift(layer.config, variables, rule)
        kind, offset, why = self._kind(layer, word, rule, shift)
        vector = scale if scale is not None else shift
        width = vector.shape[0] if vector is not None and len(vector.shape) == 1 else None
        given = layer.config.get("epsilon")
        epsilon = float(given) if isinstance(given, float | int) and not isinstance(given, bool) else None
        return Site(
            path,
            scale,
            shift,
            _tower(path),
            self._block(path),
            "stream",
            kind,
            offset,
            width,
            why,
            epsilon=epsilon,
            by_name=rule is None and self._is_nobodys(layer),
        )

    def _is_nobodys(self, layer: Layer) -> bool:
        """Whether a class is the user's own: registered under a package, and no row of the table knows it."""
        package = layer.class_name.rpartition(">")[0]
        return bool(package) and package not in ("keras", "keras_hub", "keras_nlp", "keras_cv")

    def _without_variables(self, path: str, layer: Layer, word: str) -> Site | None:
        """Return a norm that stores nothing and is one by the name of its class, if that says which."""
        if path in self.groups:
            return None  # what it contains speaks for itself
        if _RMS_NORM.search(word):
            why = f"the class {layer.class_name}: its name, of which nobody here knows what it computes"
            return Site(path, None, None, _tower(path), self._block(path), kind="RMSNorm", why=why, by_name=True)
        why = f"a class {layer.class_name[:80]} without variables: a norm by its name, of either kind"
        self.unexplained.append(Unexplained("layer", path, why))
        return None

    def _kind(
        self, layer: Layer, word: str, rule: NormClass | None, shift: TensorInfo | None
    ) -> tuple[NormKind | None, float, str]:
        """Return what the norm computes as far as the file says, what to add to its scale, and how that is known."""
        name, family = layer.class_name or word, self._family(layer.path)
        if rule is not None and rule.kind == "RMSNorm":
            offset = family[1].offset if family and word == "rms_normalization" else rule.offset
            zero_centred = f", zero-centred in the {family[0]} family" if family and offset else ""
            return "RMSNorm", offset, f"the class {name}{zero_centred}"
        if rule is not None and layer.config.get("rms_scaling"):
            return "RMSNorm", 0.0, f"{name} with rms_scaling=True: divides by the deviation, does not subtract the mean"
        if rule is not None and ("center" in layer.config or "epsilon" in layer.config):
            return "LayerNorm", 0.0, f"the class {name} and its arguments"
        if shift is not None and _LAYER_NORM.search(word):
            return "LayerNorm", 0.0, f"named {word}, with a shift"
        if _RMS_NORM.search(word) and shift is None:
            return "RMSNorm", family[1].offset if family else 0.0, f"named {word}"
        if family is not None and shift is None and (rule is None or family[1].kind == rule.kind):
            return family[1].kind, family[1].offset, f"norms of the {family[0]} family that have no shift"
        return None, 0.0, f"{word} with one variable: it may be of either kind" if shift is None else ""

    def _family(self, path: str) -> tuple[str, NormClass] | None:
        """Return the KerasHub family of the nearest layer around `path`, else of the whole file."""
        while path := path.rpartition("/")[0]:
            if (layer := self.layers.get(path)) and (family := self._family_of(layer.class_name)):
                return family
        return self.default_family

    def _family_of(self, class_name: str) -> tuple[str, NormClass] | None:
        words = snake_case(class_name).split("_")
        for n in range(min(len(words), 4), 0, -1):
            if rule := self.tables.families.get(prefix := "_".join(words[:n])):
                return prefix, rule
        return None

    def _default_family(self) -> tuple[str, NormClass] | None:
        config = self.checkpoint.config or {}
        for key in ("registered_name", "class_name"):
            if isinstance(name := config.get(key), str) and (family := self._family_of(name)):
                return family
        found = {family[0]: family for c in self.layers.values() if (family := self._family_of(c.class_name))}
        return next(iter(found.values())) if len(found) == 1 else None

    def _widths(self, sites: list[Site]) -> dict[str, int]:
        """Take the commonest length of the norms of each tower; without any, that of its embeddings."""
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for site in sites:
            if site.width is not None and not _is_query_key(site.name):
                counts[site.component][site.width] += 1
        for path, variables in self.variables.items():
            table = next(iter(variables.values()))
            if _tower(path) not in counts and len(table.shape) == 2 and self._is_embedding(path, variables):
                counts[_tower(path)][table.shape[1]] += 1
        return {tower: count.most_common(1)[0][0] for tower, count in counts.items()}

    def _block(self, path: str) -> int | None:
        """Return the number of the block around a layer: Keras leaves out that of the first one."""
        parts = path.split("/")
        for at, part in enumerate(parts[:-1]):
            if class_of(part) is not None and "transformer" not in part:
                continue  # counts layers, not blocks
            if match := re.fullmatch(r".*_(\d{1,6})", part):
                return int(match[1])
            if "/".join((*parts[:at], f"{part}_1")) in self.groups:
                return 0
        return None

    # --- the layer graph --------------------------------------------------------------------------------------

    def _inputs(self) -> Mapping[str, tuple[str, ...]]:
        """Return what feeds each layer: the graph of the configuration, else the order of a legacy file's layers."""
        if any(layer.inputs for layer in self.layers.values()):
            return {path: layer.inputs for path, layer in self.layers.items()}
        if "layer_names" not in self.checkpoint.metadata:
            return {}
        outermost = {path.partition("/")[0]: path for path in reversed(self.layers)}
        chain = list(reversed(outermost.values()))
        self.notes.append("no layer graph: norms and the layers around them are matched by the order of the layers")
        return {path: (before,) for before, path in itertools.pairwise(chain)}

    def _behind(self, path: str) -> str:
        """Go back from a layer through those that hand on their input."""
        for _ in range(_HOPS):
            layer, inputs = self.layers.get(path), self.inputs.get(path, ())
            if layer is None or snake_case(layer.class_name) not in _PASSING or len(inputs) != 1:
                break
            path = inputs[0]
        return path

    def _added(self) -> set[str]:
        """Return the layers whose output goes into a sum, that is into the residual stream."""
        return {
            self._behind(source)
            for path, layer in self.layers.items()
            if layer.class_name == "Add" or str(layer.config.get("function", "")).endswith("add")
            for source in self.inputs.get(path, ())
        }

    # --- matrices ---------------------------------------------------------------------------------------------

    def _is_embedding(self, path: str, variables: Mapping[str, TensorInfo]) -> bool:
        if (layer := self.layers.get(path)) and layer.class_name:
            return "embedding" in snake_case(layer.class_name)
        return "embeddings" in variables or ("kernel" not in variables and bool(_EMBEDDING.search(path)))

    def _matrices(self, widths: Mapping[str, int], index: Mapping[str, int]) -> Iterator[Matrix]:
        added = self._added()
        for path, variables in self.variables.items():
            tower = _tower(path)
            if (d := widths.get(tower)) is None or path in index:
                continue
            owner = self._owner(path)
            sources = [index.get(self._behind(source)) for source in self.inputs.get(owner, ())]
            for leaf, tensor in variables.items():
                if len(tensor.shape) < 2 or tensor.dtype in INTEGERS or d not in tensor.shape or "recurrent" in leaf:
                    continue
                after_norm = bool(sources) and sources[0] is not None
                embedding, convolution = self._is_embedding(path, variables), self._is_convolution(path)
                role, axis = role_of(
                    Variable(path, leaf, tensor.shape, d, embedding, convolution, after_norm, owner in added)
                )
                # a second input is the context of a cross attention
                read = sources[1 if len(sources) > 1 and re.search(r"key|value", path.rpartition("/")[2]) else 0 :]
                site = read[0] if read and role in ("reader", "unembedding") else None
                if role == "reader" and not sources:
                    site = self._in_front(path, index)
                if axis is not None:
                    yield Matrix(tensor, axis, role, tower, self._block(path), site)

    def _in_front(self, path: str, index: Mapping[str, int]) -> int | None:
        """Return the norm that a matrix inside a block reads, where no graph tells: the one named for it."""
        block, slash, inside = path.rpartition("/")
        while slash and "cross" not in inside:
            names = _PRE_NORMS["attention" if re.search("attention|attn", inside) else "mlp"]
            if (found := next((f"{block}/{name}" for name in names if f"{block}/{name}" in index), None)) is not None:
                return index[found]
            block, slash, leaf = block.rpartition("/")
            inside = f"{leaf}/{inside}"
        return None

    def _owner(self, path: str) -> str:
        """Return the layer of the graph that a group belongs to: itself, or the attention layer around it."""
        parts = path.split("/")
        return next((p for n in range(len(parts), 0, -1) if (p := "/".join(parts[:n])) in self.inputs), path)

    def _is_convolution(self, path: str) -> bool:
        return "conv" in (snake_case(self.layers[path].class_name) if path in self.layers else path.rpartition("/")[2])


def _is_norm_name(word: str) -> bool:
    return bool(NORM.search(word)) and not NOT_A_NORM.search(word) and "group" not in word and "batch" not in word


def _scale_and_shift(
    config: Mapping[str, Any], variables: Mapping[str, TensorInfo], rule: NormClass | None
) -> tuple[TensorInfo | None, TensorInfo | None]:
    """Tell γ from β: by their names, else by the order in which Keras creates them (γ first, where there is one)."""
    by_name = [next((variables[n] for n in names if n in variables), None) for names in (_SCALES, _SHIFTS)]
    if by_name != [None, None]:
        return by_name[0], by_name[1]
    numbered = iter([variables[leaf] for leaf in ("0", "1") if leaf in variables])
    has_scale = rule is None or rule.kind == "RMSNorm" or config.get("scale", True) is not False
    scale = next(numbered, None) if has_scale else None
    return scale, next(numbered, None)


def _with_role(site: Site, width: int | None) -> Site:
    """Set the role: a norm of another length than its tower's is not on the stream."""
    if _is_query_key(site.name):
        return replace(site, role="query-key")
    vector = site.scale if site.scale is not None else site.shift
    return replace(site, role="other") if vector is not None and site.width != width else site


def _is_query_key(path: str) -> bool:
    name = path.rpartition("/")[2].lower().strip("_")
    return bool(QUERY_KEY.search(name) or re.match(r"(query|key)_", name))


def _tower(path: str) -> str:
    parts = path.lower().split("/")
    words = (word for part in parts for word in (part, *(part.split("_") if "_" in part else ())) if len(word) > 2)
    return next((TOWERS[word] for word in words if TOWERS.get(word) in ("vision", "audio")), "main")
