"""The penalty of `normsniff.kernel.penalty` for a whole network: which matrices write and read, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import arguments
from ..anatomy import describe
from ..errors import FormatError
from ..inputs.arrays import flatten, from_arrays, state_of
from ..kernel.penalty import penalty
from ..limits import Limits


class Penalty:
    """The penalties of a whole network: which matrices write and read, worked out once from the names.

    Args:
        parameters: names and arrays: ``dict(model.named_parameters())``, the module of torch itself, or any mapping,
            nested or not.
        config: the network's configuration as in config.json; families that store γ - 1 are known by it.

    Raises:
        FormatError: no matrix of known role is there.
        TypeError: an argument is of another type.
    """

    def __init__(self, parameters: Any, config: Mapping[str, Any] | None = None) -> None:
        if config is not None:
            arguments.instance("config", config, (Mapping,), "a mapping, as in config.json")
        anatomy = describe(from_arrays(_live(parameters), config=config))
        self._writers = [(m.tensor.name, m.axis) for m in anatomy.matrices if m.role == "writer"]
        sites = anatomy.sites
        self._readers = [
            (m.tensor.name, m.axis, sites[m.site])
            for m in anatomy.matrices
            if m.role == "reader" and m.site is not None
        ]
        if not self._writers and not self._readers:
            raise FormatError("no-stream", "<arrays>", "no matrix is known to read or write a residual stream")

    def __call__(self, parameters: Any) -> dict[str, Any]:
        """Return the mean ρ of the ``writers`` and of the ``readers``; a role without matrices is absent.

        A penalty to add to the loss: ``loss + 0.01 * sum(penalty(parameters).values())``.
        """
        now = dict(flatten(_live(parameters), Limits().nesting))
        found = {
            "writers": [penalty(now[name], axis) for name, axis in self._writers],
            "readers": [
                penalty(now[name], axis, None if site.scale is None else now[site.scale.name] + site.offset)
                for name, axis, site in self._readers
            ],
        }
        return {role: sum(values) / len(values) for role, values in found.items() if values}


def _live(parameters: Any) -> Mapping[str, Any]:
    """Return names and arrays; of a module those that gradients reach, which its ``state_dict()`` has cut off."""
    named = getattr(parameters, "named_parameters", None)
    return dict(named()) if callable(named) and not isinstance(parameters, Mapping) else state_of(parameters)
