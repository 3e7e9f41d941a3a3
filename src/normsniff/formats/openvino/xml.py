"""The XML half of an OpenVINO model: layers, ports and edges, parsed as a stream within bounds.

No document type is accepted, so there are no entities, and the encoding is UTF-8 whatever the file says:
nothing that expat could be made to expand or to fetch is ever reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from ... import meter
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from ...source.local import ByteSource

_PIECE = 1 << 20
_ELEMENTS = 100  # a layer; the dimensions of its ports are most of them, real files have about 15
_ELEMENT_BYTES = 100  # of memory, on average: most elements are dimensions, of which a count is kept
_METADATA = 200  # values of rt_info that are kept
_BODIES = ("body", "then_body", "else_body")


@dataclass(slots=True)
class IrLayer:
    """One layer as written.

    Attributes:
        id: its number in its own net.
        name: friendly name; not always unique.
        type: operator, for example ``"MatMul"``.
        version: operator set, for example ``"opset1"``.
        data: attributes of the operator.
        inputs: numbers of the input ports, in order.
        ranks: number of axes of what arrives at each input port.
        outputs: numbers of the output ports, in order.
        bodies: sub-graphs (If, Loop, TensorIterator).
        port_map: how ports of the layer and layers of the bodies correspond: (body, kind, port, layer number).
    """

    id: str
    name: str
    type: str
    version: str
    data: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    bodies: dict[str, Net] = field(default_factory=dict)
    port_map: list[tuple[str, str, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Net:
    """One graph: layers by number in the order of the file, and for (layer, input port) the (layer, output port)."""

    layers: dict[str, IrLayer] = field(default_factory=dict)
    edges: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    last: IrLayer | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What the XML file holds."""

    net: Net
    version: str | None
    metadata: Mapping[str, str]


def parse(data: bytes, source: ByteSource, limits: Limits) -> Document:
    """Parse the XML of a model.

    Raises:
        FormatError: it is not well-formed, has a document type, or its layers contradict each other.
        LimitExceeded: more layers, edges or levels than `limits` allows.
    """
    meter.charge(len(data) // 50, "reading XML")  # a token as long as the file is looked through for each piece of it
    handler = _Handler(source.name, limits)
    parser = expat.ParserCreate("utf-8")  # overrides what the file declares
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.StartDoctypeDeclHandler = handler.refuse_doctype
    handler.parser = parser
    try:
        for at in range(0, len(data), _PIECE):
            parser.Parse(data[at : at + _PIECE], False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        handler.fail("bad-xml", str(error)[:200])
    if handler.root is None:
        handler.fail("bad-xml", "no <net> element")
    return Document(handler.root, handler.version, handler.metadata)


class _Handler:
    def __init__(self, where: str, limits: Limits) -> None:
        self.parser = expat.ParserCreate()
        self.root: Net | None = None
        self.version: str | None = None
        self.metadata: dict[str, str] = {}
        self._where, self._limits = where, limits
        self._path: list[str] = []
        self._nets: list[tuple[Net, str]] = []
        self._layers = self._elements = 0

    def fail(self, code: str, detail: str) -> NoReturn:
        raise FormatError(code, f"{self._where} @ {self.parser.CurrentByteIndex}", detail)

    def refuse_doctype(self, *_: object) -> None:
        self.fail("unsafe-xml", "a document type declaration, which no model needs")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        meter.charge(3 + len(attributes), "reading XML")
        meter.hold(_ELEMENT_BYTES + 60 * len(attributes), "reading XML")
        if self._elements > _ELEMENTS * self._limits.operators:
            self._over("XML elements", _ELEMENTS * self._limits.operators, self._elements)
        if len(self._path) >= 4 * self._limits.nesting:
            self._over("nested XML elements", 4 * self._limits.nesting, len(self._path) + 1)
        parent = self._path[-1] if self._path else ""
        self._path.append(tag)
        if tag == "net" and not parent:
            self.root, self.version = Net(), attributes.get("version")
            self._nets.append((self.root, tag))
            if "name" in attributes:
                self.metadata["name"] = attributes["name"][:200]
        elif not self._nets:
            self.fail("bad-xml", f"<{tag[:40]}> where <net> was expected")
        elif "rt_info" in self._path and tag != "rt_info":
            if "layer" not in self._path and "value" in attributes and len(self.metadata) < _METADATA:
                key = attributes.get("name", tag) if tag == "info" else tag
                self.metadata[key[:100]] = attributes["value"][:1000]
        else:
            self._in_net(tag, parent, attributes)

    def end(self, tag: str) -> None:
        self._path.pop()
        if tag in _BODIES and len(self._nets) > 1 and self._nets[-1][1] == tag:
            self._nets.pop()

    def _in_net(self, tag: str, parent: str, attributes: dict[str, str]) -> None:
        net, _ = self._nets[-1]
        layer = net.last
        if tag == "layer" and parent == "layers":
            self._layer(net, attributes)
        elif tag == "edge" and parent == "edges":
            self._edge(net, attributes)
        elif layer is None:
            return
        elif tag == "data" and parent == "layer":
            layer.data.update(attributes)
        elif tag == "port" and parent == "input":
            layer.inputs.append(attributes.get("id", ""))
            layer.ranks.append(0)
        elif tag == "dim" and len(self._path) > 2 and self._path[-3] == "input" and layer.ranks:
            layer.ranks[-1] += 1
        elif tag == "port" and parent == "output":
            layer.outputs.append(attributes.get("id", ""))
        elif tag in _BODIES and parent == "layer":
            layer.bodies[tag] = Net()
            self._nets.append((layer.bodies[tag], tag))
        elif parent.endswith("port_map") and tag in ("input", "output"):
            port, inner = attributes.get("external_port_id", ""), attributes.get("internal_layer_id", "")
            body = f"{parent.removesuffix('port_map')}body"  # port_map, then_port_map, else_port_map
            layer.port_map.append((body, tag, port, inner))

    def _layer(self, net: Net, attributes: dict[str, str]) -> None:
        self._layers += 1
        if self._layers > self._limits.operators:
            self._over("layers", self._limits.operators, self._layers)
        number = attributes.get("id", "")
        if number in net.layers or not number:
            self.fail("duplicate-layer", f"two layers with the id {number[:40]!r}")
        get = attributes.get
        net.last = net.layers[number] = IrLayer(number, get("name", ""), get("type", ""), get("version", ""))

    def _edge(self, net: Net, attributes: dict[str, str]) -> None:
        names = ("from-layer", "from-port", "to-layer", "to-port")
        source, port, target, to = (attributes.get(name, "") for name in names)
        if source not in net.layers or target not in net.layers:
            self.fail(
                "bad-edge", f"an edge from layer {source[:40]!r} to layer {target[:40]!r}, which are not both there"
            )
        net.edges[target, to] = source, port

    def _over(self, what: str, limit: int, actual: int) -> NoReturn:
        raise LimitExceeded(self._where, what, limit, actual)
