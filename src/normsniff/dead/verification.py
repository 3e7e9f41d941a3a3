"""Two models side by side: do they compute the same? Needs torch and transformers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, NormsniffError, SourceError
from ..inputs.opening import opened
from ..source.place import Place

TOLERANCES = {"F64": 1e-5, "F32": 1e-5, "F16": 5e-3, "BF16": 3e-2}
"""Largest difference that rounding explains, over the largest output, by the type of the rewritten weights. The forward
pass is float32. Random models of every family in the table differ by 2e-6 at most in F32: docs/prune.md."""

_LENGTH = 32  # tokens of a sequence


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models' outputs lie apart.

    Attributes:
        largest: the largest absolute difference.
        output: the largest absolute output of the first model.
        tokens: random tokens that both were given.
        model: class that was run.
    """

    largest: float
    output: float
    tokens: int
    model: str

    @property
    def relative(self) -> float:
        """The largest difference over the largest output."""
        return self.largest / self.output if self.output else self.largest


def compare(first: str | Place, second: str | Place) -> Difference:
    """Run two models of one configuration, that of `first`, on the same random tokens, in float32.

    Args:
        first: a safetensors model with its config.json.
        second: another with the same tensors; it needs no config.json.

    Raises:
        MissingExtra: torch or transformers is not installed.
        SourceError: the models cannot be run.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "running a model") from error

    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config = _lay_out(first, Path(scratch) / "first", None)
            _lay_out(second, Path(scratch) / "second", config)
            models = [_load(torch, transformers, Path(scratch) / name) for name in ("first", "second")]
            length = min(
                _LENGTH, getattr(models[0].config, "max_position_embeddings", _LENGTH) - 8
            )  # RoBERTa starts at 2
            ids = torch.randint(models[0].config.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                one, other = (model(input_ids=ids)[0] for model in models)
        except NormsniffError:
            raise
        except Exception as error:  # whatever transformers trips over in a configuration
            raise SourceError(str(first), f"cannot be run: {type(error).__name__}: {error}"[:500]) from error
    return Difference(
        largest=float((one - other).abs().max()),
        output=float(one.abs().max()),
        tokens=ids.numel(),
        model=type(models[0]).__name__,
    )


def _lay_out(model: str | Place, folder: Path, config: Path | None) -> Path:
    """Link the files of a model into a folder of the layout that transformers expects; return its configuration."""
    with opened(model) as checkpoint:
        paths = [source.path for source in checkpoint.sources if isinstance(source.path, Path)]
    folder.mkdir()
    weights = [path for path in paths if path.suffix == ".safetensors"]
    for path in paths:
        alone = path.suffix == ".safetensors" and len(weights) == 1
        name = "model.safetensors" if alone else path.name
        if path.name != "config.json":
            (folder / name).symlink_to(path.resolve())
    found = config or next((path for path in paths if path.name == "config.json"), None)
    if found is None:
        raise SourceError(str(model), "cannot be run: a local config.json is needed beside it")
    (folder / "config.json").symlink_to(found.resolve())
    return found


def _load(torch: Any, transformers: Any, folder: Path) -> Any:
    """Load a model as its configuration says, from local safetensors only; code beside it is never run."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    cls = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    model = cls.from_pretrained(folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    return model.eval()
