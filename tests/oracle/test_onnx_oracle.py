"""Every tensor of the real ONNX models equals what the onnx package reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from normsniff import decode
from normsniff.anatomy.graph import describe as graph_anatomy
from normsniff.anatomy.parts import Anatomy
from normsniff.checkpoint import Checkpoint
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import FileSource

pytestmark = pytest.mark.models

MODELS = ["flan-t5-encoder", "flan-t5-decoder", "magika", "ppocr-cls", "ppocr-det", "ppocr-rec"]


def opened(path: Path) -> Checkpoint:
    return read_checkpoint(FileSource(path), Limits())


def expected_tensors(model: Any) -> dict[str, Any]:
    """Initialisers, and the constants that are weights: large ones, and floating-point vectors."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            size = int(np.prod(tensor.dims))
            if size > 64 or (size > 1 and tensor.data_type in (1, 10, 11, 16)):
                stored[node.output[0]] = tensor
    return stored


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_equals_onnx(name: str, real_model: Callable[[str], Path]) -> None:
    path = real_model(name)
    checkpoint = opened(path)
    expected = expected_tensors(onnx.load(path))
    assert set(checkpoint.tensors) == set(expected)
    for key, proto in expected.items():
        tensor = msgspec.structs.replace(checkpoint.tensors[key], affine=None)
        assert tensor.shape == tuple(proto.dims)
        if tensor.size < 10_000_000:  # the largest tables would only take time
            np.testing.assert_array_equal(
                decode.read(tensor, Limits()), numpy_helper.to_array(proto).astype(np.float32), key
            )
    checkpoint.close()


def test_little_of_a_model_is_read(real_model: Callable[[str], Path]) -> None:
    checkpoint = opened(real_model("flan-t5-encoder"))
    assert checkpoint.bytes_read < 0.02 * checkpoint.file_size
    checkpoint.close()


def anatomy(path: Path) -> Anatomy:
    found = graph_anatomy.describe(opened(path))
    assert found is not None
    return found


def roles(anatomy: Anatomy) -> dict[tuple[str, int, tuple[int, ...]], int]:
    return dict(Counter((m.role, m.axis, m.tensor.shape) for m in anatomy.matrices))


def test_the_encoder_of_flan_t5(real_model: Callable[[str], Path]) -> None:
    found = anatomy(real_model("flan-t5-encoder"))
    assert Counter((site.kind, site.role, site.width) for site in found.sites) == {("RMSNorm", "stream", 512): 17}
    assert roles(found) == {
        ("embedding", 1, (32128, 512)): 1, ("reader", 0, (512, 384)): 24, ("reader", 0, (512, 1024)): 16,
        ("writer", 1, (384, 512)): 8, ("writer", 1, (1024, 512)): 8,
    }  # fmt: skip
    assert [site.layer for site in found.sites] == [n for n in range(8) for _ in range(2)] + [None]
    assert all(matrix.tensor.affine is not None for matrix in found.matrices)


def test_the_decoder_of_flan_t5(real_model: Callable[[str], Path]) -> None:
    found = anatomy(real_model("flan-t5-decoder"))
    assert Counter((site.kind, site.role, site.width) for site in found.sites) == {("RMSNorm", "stream", 512): 25}
    assert roles(found) == {
        ("embedding", 1, (32128, 512)): 1, ("unembedding", 0, (512, 32128)): 1, ("reader", 0, (512, 384)): 32,
        ("reader", 0, (512, 1024)): 16, ("writer", 1, (384, 512)): 16, ("writer", 1, (1024, 512)): 8,
    }  # fmt: skip


def test_magika_has_layer_norms_without_a_layer_norm_operator(real_model: Callable[[str], Path]) -> None:
    found = anatomy(real_model("magika"))
    assert [(site.kind, site.width) for site in found.sites] == [("LayerNorm", 512)] * 2
    assert all(site.scale is not None and site.shift is not None for site in found.sites)
    assert roles(found) == {("reader", 0, (512, 214)): 1}  # the convolution sums over the other axis


def test_pp_ocr(real_model: Callable[[str], Path]) -> None:
    assert anatomy(real_model("ppocr-cls")).others == {"BatchNorm": 27}
    assert anatomy(real_model("ppocr-det")).others == {"BatchNorm": 3}
    assert not anatomy(real_model("ppocr-cls")).sites
    assert not anatomy(real_model("ppocr-det")).sites
    recogniser = anatomy(real_model("ppocr-rec"))  # two transformer blocks on top of the convolutions
    assert Counter((site.kind, site.width) for site in recogniser.sites) == {("LayerNorm", 120): 5}
    assert recogniser.others == {"BatchNorm": 6}
    assert roles(recogniser) == {
        ("reader", 0, (120, 360)): 2, ("reader", 0, (120, 240)): 2, ("writer", 1, (120, 120)): 2,
        ("writer", 1, (240, 120)): 2, ("reader", 1, (480, 120, 1, 1)): 1,
    }  # fmt: skip
