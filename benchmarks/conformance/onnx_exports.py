"""Files that real exporters and rewriters make of the networks: torch, ONNX Runtime's optimisers and quantisers."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

Proto = Any
Inputs = Mapping[str, np.ndarray[Any, Any]]
EXPORTERS = ("torchscript11", "torchscript14", "torchscript17", "dynamo18", "dynamo23")


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of deprecations and optimisers log what they did not find."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def export(network: nn.Module, example: tuple[torch.Tensor, ...], exporter: str) -> Proto:
    """Return the model as torch writes it; `exporter` is ``torchscript`` or ``dynamo`` and an opset."""
    dynamo, opset = exporter.startswith("dynamo"), int(exporter[-2:])
    names = [f"x{i}" for i in range(len(example))]
    options: dict[str, Any] = {"external_data": False, "verbose": False, "optimize": True} if dynamo else {}
    with tempfile.TemporaryDirectory() as scratch, _quiet(), torch.no_grad():
        path = Path(scratch) / "model.onnx"
        torch.onnx.export(
            network, example, str(path), dynamo=dynamo, opset_version=opset, input_names=names, output_names=["y"],
            **options,
        )  # fmt: skip
        return onnx.load(path)


# --- rewriters ---------------------------------------------------------------------------------------------------


def _optimised(level: Any) -> Callable[[Proto, Inputs], Proto]:
    def rewrite(model: Proto, _inputs: Inputs) -> Proto:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level, options.optimized_model_filepath = level, str(path)
            options.log_severity_level = 4
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.load(path)

    return rewrite


def _transformers(kind: str, half: bool = False) -> Callable[[Proto, Inputs], Proto]:
    def rewrite(model: Proto, _inputs: Inputs) -> Proto:
        with tempfile.TemporaryDirectory() as scratch, _quiet():
            path = Path(scratch) / "model.onnx"
            onnx.save(model, path)
            better = optimizer.optimize_model(str(path), model_type=kind, num_heads=4, hidden_size=32, opt_level=0)
            if half:
                better.convert_float_to_float16(keep_io_types=True)
            return better.model

    return rewrite


def half(model: Proto, _inputs: Inputs) -> Proto:
    """Convert to float16, inputs and outputs kept."""
    with _quiet():
        return convert_float_to_float16(model, keep_io_types=True)


class _Once(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is Any for mypy
    def __init__(self, inputs: Inputs) -> None:
        self._left = iter([inputs])

    def get_next(self) -> Inputs | None:
        return next(self._left, None)


def _quantised(static: bool) -> Callable[[Proto, Inputs], Proto]:
    def rewrite(model: Proto, inputs: Inputs) -> Proto:
        with tempfile.TemporaryDirectory() as scratch, _quiet():
            before, after = Path(scratch) / "a.onnx", Path(scratch) / "b.onnx"
            onnx.save(model, before)
            if static:
                quantize_static(before, after, _Once(inputs), QuantFormat.QDQ, weight_type=QuantType.QInt8)
            else:
                quantize_dynamic(before, after, weight_type=QuantType.QInt8)
            return onnx.load(after)

    return rewrite


def four_bits(model: Proto, _inputs: Inputs) -> Proto:
    """Quantise the matrices to MatMulNBits."""
    with _quiet():
        quantiser = MatMulNBitsQuantizer(model, bits=4, block_size=16, is_symmetric=False)
        quantiser.process()
    return quantiser.model.model


def constants(model: Proto, _inputs: Inputs) -> Proto:
    """Move every initialiser into a Constant node."""
    graph = model.graph
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.node.extend(nodes)
    return model


def function(model: Proto, _inputs: Inputs) -> Proto:
    """Move all nodes into a local function that gets the weights as inputs, called by another one."""
    graph = model.graph
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    outputs = [value.name for value in graph.output]
    inner = helper.make_function("local", "Network", names, outputs, list(graph.node), list(model.opset_import))
    model.opset_import.append(helper.make_opsetid("local", 1))
    call = helper.make_node("Network", names, outputs, domain="local")
    outer = helper.make_function("local", "Outer", names, outputs, [call], list(model.opset_import))
    del graph.node[:]
    graph.node.append(helper.make_node("Outer", names, outputs, domain="local"))
    model.functions.extend([inner, outer])
    return model


def branch(model: Proto, _inputs: Inputs) -> Proto:
    """Move all nodes and weights into a branch of If; the other branch gives zeros."""
    graph = model.graph
    (output,) = graph.output
    body = helper.make_graph(list(graph.node), "then", [], [output], initializer=list(graph.initializer))
    zeros = helper.make_node("Constant", [], ["zeros"], value_floats=[0.0])
    other = helper.make_graph([zeros], "else", [], [helper.make_tensor_value_info("zeros", 1, None)])
    del graph.node[:], graph.initializer[:]
    graph.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    graph.node.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=body, else_branch=other))
    graph.output[0].name = "chosen"
    return model


def loop(model: Proto, _inputs: Inputs) -> Proto:
    """Move all nodes into the body of a Loop; the weights stay outside."""
    graph = model.graph
    (output,) = graph.output
    scalars = [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, [])]
    on = helper.make_node("Identity", ["go"], ["on"])
    done = helper.make_tensor_value_info("on", 9, [])
    body = helper.make_graph([on, *graph.node], "body", scalars, [done, output])
    del graph.node[:]
    graph.input.append(helper.make_tensor_value_info("times", 7, []))
    graph.node.append(helper.make_node("Loop", ["times", ""], ["each"], body=body))
    graph.output[0].name = "each"
    return model


_LEVELS = onnxruntime.GraphOptimizationLevel
Rewriter = Callable[[Proto, Inputs], Proto]
# what rewrites, and of which exporters
REWRITERS: Mapping[str, tuple[Rewriter, tuple[str, ...]]] = {
    "ORT basic": (_optimised(_LEVELS.ORT_ENABLE_BASIC), ("torchscript14", "dynamo18")),
    "ORT extended": (_optimised(_LEVELS.ORT_ENABLE_EXTENDED), ("torchscript14", "torchscript17", "dynamo23")),
    "ORT transformers": (_transformers("bert"), ("torchscript14", "dynamo18")),
    "ORT transformers, float16": (_transformers("gpt2", half=True), ("torchscript17",)),
    "float16": (half, ("torchscript17", "dynamo18")),
    "int8 dynamic": (_quantised(static=False), ("torchscript14", "dynamo18")),
    "int8 static": (_quantised(static=True), ("torchscript11", "torchscript17", "dynamo23")),
    "4 bits": (four_bits, ("dynamo18",)),
    "weights in Constant nodes": (constants, ("torchscript17",)),
    "local functions": (function, ("torchscript14", "dynamo23")),
    "branch of If": (branch, ("torchscript14",)),
    "body of Loop": (loop, ("dynamo18",)),
}


def save(model: Proto, directory: Path) -> Path:
    """Save in one file."""
    path = directory / "model.onnx"
    onnx.save(model, path)
    return path


def save_external(model: Proto, directory: Path) -> Path:
    """Save with the weights in a file beside it."""
    path = directory / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path
