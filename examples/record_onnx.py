"""Record what the norms of an ONNX model put out, with ONNX Runtime, for `normsniff readout`.

python examples/record_onnx.py fixtures/gpt2-ln.torchscript17.f16.onnx activations.npz
normsniff readout activations.npz fixtures/gpt2-ln.torchscript17.f16.onnx
"""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime

import normsniff


def record(path: str, batches: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Run the model over the batches; return the output of every norm, one row a token."""
    norms = {one.output: one.norm for one in normsniff.directions(path) if one.output}
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in norms)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # a fused norm has no output
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    runs = [session.run(list(norms), batch) for batch in batches]
    return {
        name: np.concatenate([run[i].reshape(-1, run[i].shape[-1]) for run in runs])
        for i, name in enumerate(norms.values())
    }


if __name__ == "__main__":
    path, output = sys.argv[1:]
    (takes,) = onnxruntime.InferenceSession(path).get_inputs()
    shape = [n if isinstance(n, int) else 1 for n in takes.shape]
    generator = np.random.default_rng(0)
    np.savez(output, **record(path, [{takes.name: generator.integers(96, size=shape)} for _ in range(8)]))
