"""Every cap on what a file may make us do, with the reason beside the number."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that keep the cost of a hostile file bounded. All sizes are in bytes.

    A length found in a file is first checked against the file's own size; these caps then bound what
    an honest-looking large file may cost.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field.name} must be a number, not {value!r:.80}")
            if not value >= 0:
                raise ValueError(f"{field.name} must not be negative, not {value!r}")

    steps: int | None = None
    """Work of one answer, in steps of about a microsecond; whoever loops over what a file holds counts them
    (`normsniff.meter`). None: 800,000 and one for every 4 bytes of the files, at most 6,000,000."""

    held_bytes: int | None = None
    """Memory of one answer for what the files hold. None: 100 MB and 16 bytes a byte of the files, at most 700 MB."""

    header_bytes: int = 100_000_000
    """safetensors' own cap on its header. The largest real one seen (60,000 tensors) is below 10 MB."""

    tensors: int = 1_000_000
    """Tensors in one checkpoint. Mixture-of-experts uploads reach 60,000."""

    metadata_keys: int = 100_000
    """Keys of one GGUF header, and arrays inside its arrays. Real headers have below 200 keys and no nested array."""

    metadata_values: int = 50_000_000
    """Elements of GGUF metadata arrays. A 256k vocabulary with merges and scores has about 1.5 million."""

    value_bytes: int = 16_000_000
    """One metadata string that is kept (the largest real ones are chat templates of about 100 kB)."""

    graph_bytes: int = 256_000_000
    """ONNX graph without its bulk tensor data. Real graphs are below 20 MB."""

    operators: int = 200_000
    """Nodes of an ONNX graph once its functions are expanded. Unrolled language models have about 50,000."""

    nesting: int = 64
    """Depth of groups, sub-graphs and JSON. Real files stay below 20."""

    files: int = 20_000
    """Files of one model or one directory walk."""

    tensor_bytes: int = 64_000_000
    """One tensor that is decoded whole (scales, shifts, quantisation parameters); matrices are sampled."""

    piped_bytes: int = 16_000_000_000
    """What is taken from standard input, and kept in a temporary file meanwhile: a network of 8 billion parameters in
    16 bits. Larger ones are in shards, which no pipe brings."""

    fetched_bytes: int = 256_000_000
    """Bytes that one remote model may cost. Headers of 15 MB and 32 MB of matrices are the most that a label takes."""

    requests: int = 5_000
    """Requests that one remote model may cost. An ONNX file that holds its weights takes about one a tensor."""

    whole_bytes: int = 8_000_000
    """A remote file that is taken whole where the server sends no ranges; configurations and indexes are smaller."""

    request_seconds: float = 60.0
    """One request of at most 8 MiB, from connecting to the last byte; sent again only within this time."""

    remote_seconds: float = 600.0
    """All that one remote model may take. A header and its samples are about 30 requests of 30 ms, and 40 MB."""

    inflated_bytes: int = 4_000_000_000
    """A compressed archive member, once inflated."""

    inflation_ratio: int = 100
    """Inflated over stored size. Weights compress by 1.1 to 3; only bombs reach 100 (Keras uses the same cap)."""
