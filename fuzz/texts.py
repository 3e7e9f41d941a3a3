"""Mutations of texts that a structure is written in: JSON, XML, YAML, heads of NumPy arrays."""

from __future__ import annotations

import copy
import json
import random
import re

from .mutations import MOST, NUMBERS, again, plain

_WORDS = (
    "model_type", "architectures", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_type",
    "normalization", "rms_norm", "hidden_size", "num_hidden_layers", "text_config", "vision_config", "encoder",
    "decoder",
    "quantization_config", "quant_method", "bits", "group_size", "base_model_name_or_path", "class_name", "config",
    "layers", "inbound_nodes", "build_config", "metadata", "weight_map", "__metadata__", "dtype", "shape",
    "data_offsets", "llama", "gpt2", "bert", "LlamaForCausalLM", "LayerNormalization", "epsilon", "axis",
)  # fmt: skip
"""Keys and words that somebody looks for; others mostly say nothing."""

_VALUES: tuple[object, ...] = (
    *NUMBERS, -1, -(2**63), 10**30, 1e300, 5e-324, 0.5, None, True, False, "", "F32", "\ud800", "\0", "../x", "x" * 500,
    [], {}, [0], [2**62, 0], [1] * 70, [[]], [None], {"": ""}, ["a", 1, None], *_WORDS,
)  # fmt: skip


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Change a value, a key or a whole branch of a JSON text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return plain(data, rng)
    if rng.random() < 0.05:
        deep = rng.choice((10, 70, 1000, 100_000))
        return b'{"a":' * deep + b"1" + b"}" * deep if rng.random() < 0.5 else b"[" * deep + b"]" * deep
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(value, rng)
    return json.dumps(value).encode()


def json_head(data: bytes, rng: random.Random) -> bytes:
    """Do that with the header of a safetensors file, and mend its length."""
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= len(data):
        return plain(data, rng)
    text = json_text(data[8 : 8 + length], rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _changed(top: object, rng: random.Random) -> object:
    if not isinstance(top, dict | list) or not top or rng.random() < 0.01:
        return _value(rng)
    value: dict[str, object] | list[object] = top
    branches: list[object] = []
    while True:
        keys: list[object] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        inner = value[key]  # type: ignore[index,call-overload]  # a key of this one
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            branches.append(value)
            value = inner
            continue
        _change_in(value, key, rng, branches)
        return top


def _change_in(
    value: dict[str, object] | list[object], key: object, rng: random.Random, branches: list[object]
) -> None:
    kind = rng.randrange(8)
    if isinstance(value, dict):
        if kind == 0:
            value[str(key)[:100] * rng.choice((1, 2, 1000))] = value.pop(str(key))
        elif kind == 1:
            value[rng.choice(_WORDS)] = _value(rng)
        elif kind == 2:
            del value[str(key)]
        elif kind == 3:  # the same thing under another name
            value[str(key)] = value[rng.choice(list(value))]
        else:
            value[str(key)] = _near(value[str(key)], rng)
        return
    assert isinstance(key, int)
    if kind == 0:
        del value[key]
    elif kind == 1:
        value[key:key] = [value[key]] * rng.choice((1, 2, 300 if len(value) < 300 else 1))
    elif kind == 2:
        value[key] = json.loads(json.dumps(rng.choice(branches))) if branches and len(str(branches)) < 20_000 else None
    else:
        value[key] = _near(value[key], rng)


def _value(rng: random.Random) -> object:
    return copy.deepcopy(rng.choice(_VALUES))  # it may be changed where it comes to stand


def _near(value: object, rng: random.Random) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-8, -1, 1, 8, value))
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", ".", "/", "0", "é", value[:1000], "_weight")) + value[at + 1 :]
    return _value(rng)


_DIGITS = re.compile(rb"\d+")
_QUOTED = re.compile(rb'"([^"<>]*)"')
_ELEMENT = re.compile(rb"<(layer|edge|port|dim|data|input|output|rt_info|attribute)\b[^<]*(?:/>|>.*?</\1>)", re.DOTALL)


def digits(data: bytes, rng: random.Random) -> bytes:
    """Change a number that is written out, near the front."""
    found = list(_DIGITS.finditer(data, 0, 16_384))
    if not found:
        return plain(data, rng)
    match = rng.choice(found)
    old = int(match[0][:30])
    new = rng.choice((*NUMBERS, -1, 10**40, old + 1, old - 1, int(rng.choice(found)[0][:30])))
    return data[: match.start()] + str(new).encode() + data[match.end() :]


def xml(data: bytes, rng: random.Random) -> bytes:
    """Change an attribute, or drop, repeat, move or nest an element."""
    if rng.random() < 0.5:
        quoted = list(_QUOTED.finditer(data))
        if not quoted:
            return plain(data, rng)
        match = rng.choice(quoted)
        new = rng.choice((
            str(rng.choice(NUMBERS)).encode(), rng.choice(quoted)[1], b"", b"-1", b"1,2,3", b"4," * 500, b"&#0;",
            b"f32", b"i4", match[1] * 3, b"true",
        ))  # fmt: skip
        return data[: match.start(1)] + new + data[match.end(1) :]
    elements = list(_ELEMENT.finditer(data))
    if not elements:
        return plain(data, rng)
    one, other = rng.choice(elements), rng.choice(elements)
    kind = rng.randrange(4)
    if kind == 0:
        return data[: one.start()] + data[one.end() :]
    if kind == 1:
        return data[: one.start()] + again(one[0], rng.choice((2, 3, 300))) + data[one.end() :]
    if kind == 2:
        return data[: one.start()] + other[0] + data[one.end() :]
    inner = one[0].find(b">") + 1
    return data[: one.start() + inner] + other[0] + data[one.start() + inner :]


def lines(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, indent, move or fill a line, as of YAML."""
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    kind = rng.randrange(6)
    if kind == 0:
        del rows[at]
    elif kind == 1:
        rows[at:at] = [rows[at]] * min(rng.choice((1, 2, 3000)), max(1, MOST // (len(rows[at]) + 1)))
    elif kind == 2:
        rows[at] = b" " * rng.choice((1, 2, 7, 300)) + rows[at].lstrip()
    elif kind == 3:
        key = rows[at].partition(b":")[0]
        value = rng.choice(
            (*_WORDS, *map(str, NUMBERS), "&a [*a]", "{", "|", "'", "- x", "é" * 300, "!!python/object:x")
        )
        rows[at] = key + b": " + value.encode()
    elif kind == 4:
        rows.insert(rng.randrange(len(rows)), rows[at])
    else:
        rows[at] = plain(rows[at], rng)
    return b"\n".join(rows)
