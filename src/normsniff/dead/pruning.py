"""A LayerNorm model without what cannot matter in it: same function, fewer effective parameters, nothing unproven.

Three facts allow it (docs/prune.md derives them). LayerNorm subtracts the mean, so the mean of what is written into the
stream never arrives: writers may be centred. Its output never moves along v, so a reader's energy along v only makes a
constant: it may go into the bias. And what is rewritten so changes no norm's output, so each step stands on its own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import arguments, kernel, meter
from ..anatomy.parts import Anatomy, Matrix, Site
from ..checkpoint import Checkpoint, TensorInfo
from ..course import classify
from ..dtypes import FLOATS
from ..errors import OutputError, Refused
from ..limits import Limits
from ..model import Model, modelled
from ..outputs import new_directory, replacing
from ..record import Classification
from ..source.local import ByteSource
from ..source.place import Place
from ..source.places import is_file, is_inside, names_in, open_file
from ..source.views import Extent
from .directions import basis_of
from .rewriting import Compensation, Removal
from .wirings import Stack, check, wiring_of

COMPANY = re.compile(
    r"(tokenizer|vocab|merges|special_tokens|added_tokens|generation_config|preprocessor_config|processor_config"
    r"|chat_template|spiece|sentencepiece|source|target|modules|sentence_bert_config|config_sentence|LICENSE|NOTICE)"
    r"[\w.-]*(?<!\.safetensors)(?<!\.bin)(?<!\.pt)(?<!\.onnx)|[\w.-]+\.(tiktoken|model|spm|jinja|bpe)"
)
"""Names of files that belong to a model and hold no weights: what transformers' and sentence-transformers' loaders read
from its directory, and its licence."""

_COPY = 1 << 23  # bytes at once
_BARE = re.compile(r"(?!\w*(LMHead|DoubleHeads|For))\w+Model")  # BertModel, not GPT2LMHeadModel


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done to a model.

    Attributes:
        output: the file or directory written.
        centred: tensors without their mean along the stream now.
        projected: readers without their energy along the dead direction now.
        compensated: biases that took over what a reader lost.
        left: tensors that were left as they are although something in them may be redundant, and why.
        redundant: parameters' worth of freedom that could not matter, and that the output has no longer.
        parameters: of the model.
        dtypes: stored types of what was rewritten; it was rounded to them once more.
        copied: files that lay beside the model and were copied as they are: tokenizer, settings and the like.
        left_behind: what else lies beside it, and was not copied.
    """

    output: str
    centred: tuple[str, ...]
    projected: tuple[str, ...]
    compensated: tuple[str, ...]
    left: Mapping[str, str]
    redundant: int
    parameters: int
    dtypes: tuple[str, ...]
    copied: tuple[str, ...]
    left_behind: tuple[str, ...]


def prune(source: str | Place, output: str | Path, *, limits: Limits | None = None) -> Pruned:
    """Write a copy of a LayerNorm model that computes the same and has no energy where none can matter.

    Every tensor keeps its name, type, shape and place in its file, and the header is copied byte for byte. Memory holds
    blocks of one tensor at a time.

    Args:
        source: a safetensors file, the index of several, or the directory of one model; its config.json beside it.
        output: a ``.safetensors`` file (replaced if it is there), or a new directory, which also gets the config.json,
            the index of shards, and what loaders read beside weights (`COMPANY`): tokenizer, vocabulary, settings.
        limits: caps on what the files may cost.

    Raises:
        Refused: it was not proven that the function stays the same.
        TypeError: an argument is of another type.
        ValueError: a path is empty.
        OutputError: the output cannot be written, or is the model itself.
        NormsniffError: as `sniff` does.
    """
    path = Path(arguments.path("output", output))
    with modelled(source, limits=limits) as model:
        checkpoint = model.checkpoint
        meter.ask(2 * checkpoint.file_size)  # all is copied, and matrices are read for what takes their place
        plan = _Edits(model)
        company, others = _company(checkpoint, model.limits)
        if path.suffix == ".safetensors":
            settings = [one.path.name for one in checkpoint.sources if one.path and one.path.name.endswith(".json")]
            company, others = [], [*settings, *(place.name for place in company)]
        _write(checkpoint, plan.edits, path, company)
    removals = [edit for edit in plan.edits.values() if isinstance(edit, Removal)]
    return Pruned(
        output=str(path),
        centred=tuple(edit.tensor.name for edit in removals if edit.tensor.name in plan.centred),
        projected=tuple(edit.tensor.name for edit in removals if edit.tensor.name not in plan.centred),
        compensated=tuple(name for name, edit in plan.edits.items() if isinstance(edit, Compensation)),
        left=plan.left,
        redundant=sum(edit.redundant for edit in removals),
        parameters=sum(tensor.size for tensor in checkpoint.tensors.values() if tensor.dtype in FLOATS),
        dtypes=tuple(sorted({edit.tensor.dtype for edit in plan.edits.values()})),
        copied=tuple(place.name for place in company),
        left_behind=tuple(others),
    )


class _Edits:
    """The proof, and with it what to rewrite: name of a tensor -> its edit."""

    def __init__(self, model: Model) -> None:
        checkpoint, where = model.checkpoint, model.name
        self.edits: dict[str, Removal | Compensation] = {}
        self.centred: set[str] = set()
        self.left: dict[str, str] = {}
        self._tensors, self._where = checkpoint.tensors, where
        if checkpoint.format != "safetensors":
            raise Refused(where, f"only safetensors files are rewritten, this is {checkpoint.format}")
        if checkpoint.warnings:
            raise Refused(where, f"the file is odd: {checkpoint.warnings[0]}")
        _check_label(classify(model), where)
        wiring = wiring_of(checkpoint.config, where)
        config = checkpoint.config or {}
        stack = check(wiring, self._tensors, config, where)
        anatomy = model.anatomy
        self._check_roles(anatomy, stack, transposed=wiring.transposed)
        self._sites, self._vectors = anatomy.sites, model.vectors
        untied = config.get("tie_word_embeddings") is False
        for matrix in anatomy.matrices:
            inside, beside = matrix.tensor.name in stack.inside, matrix.tensor.name in stack.beside
            if (matrix.role == "writer" and inside) or (matrix.role == "position" and beside):
                self._centre(matrix)
            elif matrix.role == "reader" and inside:
                self._project(matrix)
            elif matrix.role == "embedding" and beside and (untied or _is_headless(config)):
                self._centre(matrix)
            elif matrix.role == "embedding":
                self.left[matrix.tensor.name] = "it may be the unembedding as well, which reads the mean of its rows"
            elif matrix.role == "unembedding" and untied and self._reads(matrix, stack.final):
                self._project(matrix)
            elif matrix.role == "unembedding":
                self.left[matrix.tensor.name] = "it may be tied to the embedding, or read something else"

    def _check_roles(self, anatomy: Anatomy, stack: Stack, *, transposed: bool) -> None:
        """One stream; every norm of the blocks is known, and every matrix in them reads a norm or writes."""
        if anatomy.basis != "names" or list(anatomy.widths) != ["main"]:
            raise Refused(self._where, f"one residual stream is expected, not {len(anatomy.widths)}")
        d = anatomy.widths["main"]
        roles = {matrix.tensor.name: matrix for matrix in anatomy.matrices}
        norms = {tensor.name for site in anatomy.sites for tensor in (site.scale, site.shift) if tensor is not None}
        for name, tensor in self._tensors.items():
            if name not in stack.inside or name in norms or len(tensor.shape) == 1:
                continue
            matrix = roles.get(name)
            if matrix is None or matrix.role not in ("reader", "writer"):
                raise Refused(f"{self._where} @ {name}", "whether it reads or writes the stream is not known")
            if len(tensor.shape) != 2 or matrix.axis != ((matrix.role == "reader") != transposed):
                raise Refused(f"{self._where} @ {name}", "the stream runs along another axis than in this family")
            if matrix.role == "reader" and (matrix.site is None or not _is_plain(anatomy.sites[matrix.site], d)):
                raise Refused(f"{self._where} @ {name}", "it does not read the stream through a norm that is known")

    def _centre(self, matrix: Matrix) -> None:
        d = matrix.tensor.shape[matrix.axis]
        ones = np.full((1, d), d**-0.5)
        self._remove(Removal(matrix.tensor, matrix.axis, ones))
        self.centred.add(matrix.tensor.name)
        bias = self._bias(matrix.tensor, d)
        if bias is not None and matrix.role == "writer":
            self._remove(Removal(bias, 0, ones))
            self.centred.add(bias.name)

    def _reads(self, matrix: Matrix, norm: str) -> bool:
        return matrix.site is not None and self._sites[matrix.site].name == norm

    def _project(self, matrix: Matrix) -> None:
        name, n = matrix.tensor.name, matrix.tensor.size // matrix.tensor.shape[matrix.axis]
        assert matrix.site is not None
        scale, shift = self._vectors.scales.get(matrix.site), self._vectors.shifts.get(matrix.site)
        stored = self._sites[matrix.site].shift
        if scale is None or not np.isfinite(scale).all() or (stored is not None and shift is None):
            raise Refused(f"{self._where} @ {name}", "the norm that it reads could not be read, or is not finite")
        removal = Removal(matrix.tensor, matrix.axis, basis_of(kernel.dead_direction(scale), len(scale)))
        constant = removal.basis @ (np.zeros(len(scale)) if shift is None else shift)
        bias = self._bias(matrix.tensor, n)
        if constant.any() and bias is None:
            self.left[name] = "it has no bias to take over the constant vᵀβ"
            return
        self._remove(removal)
        if constant.any() and bias is not None:
            self._check_type(bias)
            self.edits[bias.name] = Compensation(bias, removal, constant)

    def _remove(self, removal: Removal) -> None:
        self._check_type(removal.tensor)
        self.edits[removal.tensor.name] = removal

    def _check_type(self, tensor: TensorInfo) -> None:
        where = f"{self._where} @ {tensor.name}"
        if tensor.dtype not in FLOATS or tensor.affine is not None or not isinstance(tensor.storage, Extent):
            raise Refused(
                where, f"{tensor.dtype} values are not rewritten: quantising them again would change the function"
            )
        if len(tensor.shape) > 2 or tensor.name in self.edits:
            raise Refused(where, "it is no matrix, or has two roles")

    def _bias(self, matrix: TensorInfo, length: int) -> TensorInfo | None:
        bias = self._tensors.get(f"{matrix.name.removesuffix('weight')}bias")
        return bias if bias is not None and bias.shape == (length,) else None


def _is_plain(site: Site, d: int) -> bool:
    """Whether a norm is one of the stream, with a scale for each of its d dimensions, and not said to be an RMSNorm."""
    return site.role == "stream" and site.kind != "RMSNorm" and site.scale is not None and site.scale.shape == (d,)


def _is_headless(config: Mapping[str, Any]) -> bool:
    """Whether the configuration names only classes that put out the stream, and no logits."""
    classes = config.get("architectures") or ()
    return bool(classes) and all(isinstance(name, str) and _BARE.fullmatch(name) for name in classes)


def _check_label(record: Classification, where: str) -> None:
    if record.label == "RMSNorm":
        raise Refused(where, "RMSNorm does not subtract the mean, so nothing in it is redundant")
    declared = [one for one in record.evidence if one.kind == "declared" and one.label == "LayerNorm"]
    if record.label != "LayerNorm" or not declared or record.contradictions:
        said = f"the verdict is {record.label}"
        if record.contradictions:
            said = record.contradictions[0].statement
        elif record.label == "LayerNorm":
            said = "nothing declares it here; put the model's config.json beside the file"
        raise Refused(
            where, f"a model that is declared to use LayerNorm, and does not contradict it, is needed: {said}"
        )


def _company(checkpoint: Checkpoint, limits: Limits) -> tuple[list[Place], list[str]]:
    """Return what lies beside a model and belongs to it without being weights, and the names of everything else."""
    own = [source.path for source in checkpoint.sources if source.path is not None]
    taken, home = {path.name for path in own}, own[0].parent
    names = sorted(islice(names_in(home), limits.files))
    company, others = [], []
    for name in names:
        place = home.joinpath(name)
        if name in taken or name.startswith("."):
            continue
        fits = COMPANY.fullmatch(name) is not None and is_inside(home, place) and is_file(place)
        if fits and _size(place) <= limits.header_bytes:
            company.append(place)
        else:
            others.append(name)
    return company, others


def _size(place: Place) -> int:
    with contextlib.closing(open_file(place)) as source:
        return source.size


def _write(
    checkpoint: Checkpoint, edits: Mapping[str, Removal | Compensation], output: Path, company: Sequence[Place]
) -> None:
    """Copy every file of the model, but for the edits, and its company as it is."""
    files: dict[ByteSource, list[TensorInfo]] = {}
    for tensor in checkpoint.tensors.values():
        assert isinstance(tensor.storage, Extent)
        files.setdefault(tensor.storage.source, []).append(tensor)
    taken = [source.path for source in checkpoint.sources if isinstance(source.path, Path)]
    if output.suffix == ".safetensors":
        if len(files) > 1:
            raise OutputError(str(output), f"the model is in {len(files)} files: name a directory for them")
        if output.exists() and any(output.samefile(path) for path in taken):
            raise OutputError(str(output), "it is the model itself")
        ((source, tensors),) = files.items()
        with replacing(output) as file:
            _copy(source, tensors, edits, file)
        return
    names = [source.path.name for source in checkpoint.sources if source.path is not None]
    if len(set(names)) < len(names):
        raise OutputError(str(output), "two files of the model have the same name")
    with new_directory(output) as directory:
        for source in checkpoint.sources:  # the index of shards and the config.json too
            if source.path is not None:
                with replacing(directory / source.path.name) as file:
                    _copy(source, files.get(source, []), edits, file)
        for place in company:
            with contextlib.closing(open_file(place)) as source, replacing(directory / place.name) as file:
                _copy(source, [], edits, file)


def _copy(
    source: ByteSource, tensors: list[TensorInfo], edits: Mapping[str, Removal | Compensation], file: BinaryIO
) -> None:
    done = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.storage.start):  # type: ignore[union-attr]  # all are extents
        edit = edits.get(tensor.name)
        if edit is None:
            continue
        assert isinstance(tensor.storage, Extent)
        _copy_range(source, done, tensor.storage.start, file)
        for piece in edit.pieces():
            file.write(piece)
        done = tensor.storage.stop
        if file.tell() != done:
            raise OutputError(tensor.name, f"{file.tell():,} bytes were written up to its end, not {done:,}")
    _copy_range(source, done, source.size, file)


def _copy_range(source: ByteSource, start: int, stop: int, file: BinaryIO) -> None:
    for at in range(start, stop, _COPY):
        file.write(source.read_at(at, min(_COPY, stop - at)))
