"""Operators that nobody defines here: what their names say, and whether anything is known of them.

An operator of the standard or of a runtime's documented set does what its documentation says. Any other may do
anything: it may name a norm, which is a statement in words, weaker than arithmetic; else it stays unexplained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from ...checkpoint import Operator
from ..parts import NormKind

# ContribOperators.md of ONNX Runtime 1.26, without those that run a network compiled elsewhere (EPContext, Snpe, ...)
_MICROSOFT = frozenset(
    [
        "Attention", "BeamSearch", "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu",
        "BifurcationDetector", "BitmaskBiasDropout", "BitmaskDropout", "BranchwiseRMSNorm", "CausalConvWithState",
        "CDist", "ComplexMul", "ComplexMulConj", "ConvTransposeWithDynamicPads", "CropAndResize", "DecoderAttention",
        "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DequantizeBFP", "DequantizeLinear",
        "DequantizeWithOrder", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "DynamicTimeWarping",
        "EmbedLayerNormalization", "ExpandDims", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul",
        "FusedMatMulActivation", "GatedRelativePositionBias", "GatedRMSNorm", "GatherBlockQuantized", "GatherND",
        "Gelu", "GemmFastGelu", "GemmFloat8", "GemmaRotaryEmbedding", "GreedySearch", "GridSample", "GroupNorm",
        "GroupQueryAttention", "Inverse", "Irfft", "LinearAttention", "LongformerAttention", "MatMulBlockQuantizedLut",
        "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MatMulNBitsMlp",
        "MatMulNBitsQkv", "MaxpoolWithMask", "MoE", "MulInteger", "MultiHeadAttention", "MurmurHash3",
        "NGramRepeatBlock", "NhwcConv", "NhwcFusedConv", "NhwcMaxPool", "PackedAttention", "PackedMultiHeadAttention",
        "Pad", "PagedAttention", "QAttention", "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearAveragePool",
        "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul",
        "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE", "QOrderedAttention",
        "QOrderedGelu", "QOrderedLayerNormalization", "QOrderedLongformerAttention", "QOrderedMatMul", "QuantizeBFP",
        "QuantizeLinear", "QuantizeWithOrder", "QuickGelu", "Range", "ReduceSumInteger", "RelativePositionBias",
        "RemovePadding", "RestorePadding", "Rfft", "RMSNormRotary", "RotaryEmbedding", "SampleOp", "Sampling",
        "SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
        "SparseAttention", "SparsePagedAttention", "SparseToDenseMatMul", "Tokenizer", "TorchEmbedding",
        "TransposeMatMul", "Trilu", "UnfoldTensor", "Unique", "WhisperBeamSearch", "WordConvEmbedding",
    ]
)  # fmt: skip
# once in the standard as experiments, or run under its domain by ONNX Runtime
_OLD = frozenset(
    [
        "Affine", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill", "ImageScaler", "ParametricSoftplus", "Scale",
        "ScaledTanh", "Upsample", "SimplifiedLayerNormalization", "FusedConv", "FusedGemm", "FusedMatMul",
        "MemcpyFromHost", "MemcpyToHost",
    ]
)  # fmt: skip
# custom operators that TensorFlow Lite or MediaPipe come with
_TFLITE = frozenset(
    ["AudioSpectrogram", "Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D", "Mfcc",
     "NumericVerify", "RFFT2D", "TFLite_Detection_PostProcess"]
)  # fmt: skip
# trees; convolutions in other layouts; layers of a Keras model, which are judged by their classes
_LIBRARIES = frozenset(["ai.onnx.ml", "com.microsoft.nchwc", "com.ms.internal.nhwc", "keras"])

_RMS = re.compile(
    r"rms_?(layer_?)?norm|rms_?(layer_?)?ln|root_?mean_?square|(simplified|t5|no_?bias_?rms)_?layer_?norm"
)
_LAYER = re.compile(r"layer_?norm")
_OTHER: Mapping[str, str] = {
    "batch_?norm": "BatchNorm", "group_?norm": "GroupNorm", "inst(ance)?_?norm": "InstanceNorm", "l2_?norm": "L2Norm",
    "(lp|l1)_?norm": "LpNorm", "local_?response_?norm|lrn": "LocalResponseNorm",
}  # fmt: skip
_BACKWARDS = re.compile(r"grad|backward")
_WORDS = 100  # characters of a name or of an attribute that are looked at


def named_norm(op: Operator) -> tuple[NormKind | None, str | None]:
    """Return what an operator's name, or a short text among its attributes, says that it is.

    Returns:
        LayerNorm or RMSNorm, if it says so; else another norm's name, ``"norm"`` where it does not say which.
    """
    texts = [op.op_type, *(value for value in op.attributes.values() if isinstance(value, str))]
    for text in texts:
        word = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text[:_WORDS]).lower().replace("-", "_").replace(" ", "_")
        if ("norm" not in word and "lrn" not in word and "rms" not in word) or _BACKWARDS.search(word):
            continue
        if _RMS.search(word):
            return "RMSNorm", None
        for pattern, kind in _OTHER.items():
            if re.search(pattern, word):
                return None, kind
        if _LAYER.search(word):
            return "LayerNorm", None
        if "norm" in word:
            return None, "norm"
    return None, None


@cache
def is_defined(domain: str, op_type: str, file_format: str) -> bool:
    """Whether an operator is documented: part of the standard, or of a runtime's published set."""
    if domain == "custom":  # TensorFlow Lite's own, and TensorFlow's operators as they are
        return op_type in _TFLITE or (op_type.startswith("Flex") and "norm" not in op_type.lower())
    if domain == "com.microsoft":
        return op_type in _MICROSOFT
    if domain or file_format != "ONNX":  # readers of other formats put what is not built in under a domain of its own
        return domain in _LIBRARIES or not domain
    from onnx import defs

    return op_type in _OLD or bool(defs.has(op_type))
