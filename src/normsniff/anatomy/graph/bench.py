"""What regions of one graph are run with: their constants, the sizes of their values, the words of their operators."""

from __future__ import annotations

from collections.abc import Sequence

from ...checkpoint import Checkpoint, Graph, Operator
from ...limits import Limits
from .arithmetic import MOST, CannotRunError, Numbers, exact
from .regions import Flow
from .sizes import Sizes, find_sizes
from .view import GraphView

LIMITS = Limits()
"""Of constants: nothing above `MOST` elements is read here, whatever a caller allows."""
_INEXACT = frozenset(["Slice", "Split", "Pad", "Expand", "Tile", "Gather", "Conv", "AveragePool", "MaxPool"])
"""Operators that the readers of other formats than ONNX name so for the patterns' sake, with operands of their own."""


class Bench:
    """One graph, ready to have regions of it run.

    Attributes:
        view: the graph as the patterns see it.
        flow: the data paths.
        sizes: sizes of the values.
        opset: version of the operator set.
    """

    def __init__(self, view: GraphView, checkpoint: Checkpoint, graph: Graph) -> None:
        self.view = view
        self.flow = Flow(graph.operators, graph.inputs)
        self.opset = _opset(checkpoint)
        self._inexact = frozenset() if checkpoint.format == "ONNX" else _INEXACT
        given: dict[str, Sequence[int | None]] = dict(graph.shapes.items())
        self.sizes: Sizes = find_sizes(
            graph.operators, given, checkpoint.tensors, graph.constants, self.opset, self._inexact
        )
        self._stored_tensors = checkpoint.tensors
        self._tensors: dict[str, Numbers] = {}

    def constant(self, name: str) -> Numbers:
        """Return a stored tensor or constant.

        Raises:
            CannotRunError: it is too large, or cannot be decoded, or is not there.
        """
        if name not in self._tensors:
            value = self.sizes.values.get(name)
            self._tensors[name] = value if value is not None else self._stored(name)
        return self._tensors[name]

    def _stored(self, name: str) -> Numbers:
        from ...decode import is_decodable, read

        tensor = self._stored_tensors.get(name)
        if tensor is None or tensor.size > MOST or not is_decodable(tensor.dtype):
            raise CannotRunError(f"the constant {name[:60]} cannot be read")
        return exact(read(tensor, LIMITS))

    def refuse_inexact(self, op: Operator) -> None:
        """Refuse operators whose operands the reader of the format did not put into ONNX's words."""
        if op.op_type in self._inexact:
            raise CannotRunError(f"{op.op_type} of this format is not run here")


def _opset(checkpoint: Checkpoint) -> int:
    found = checkpoint.metadata.get("opset.ai.onnx", 0)
    return found if isinstance(found, int) and found > 0 else 13
