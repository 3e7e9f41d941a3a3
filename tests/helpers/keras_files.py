"""Keras archives, their layers and their weights, as Keras 3 writes them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py


def layer(file: h5py.File, path: str, name: str | None, *variables: Any) -> None:
    """Write a layer as Keras 3 does: ``<path>/vars/0`` ... and the user's name on the group."""
    group = file.create_group(f"{path}/vars")
    if name is not None:
        group.attrs["name"] = name
    for i, variable in enumerate(variables):
        group[str(i)] = variable


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, compression)  # of no date: the same bytes each time
    return buffer.getvalue()


def node(class_name: str, name: str, *inputs: str, **arguments: Any) -> dict[str, Any]:
    """Serialise a layer of a functional model as Keras 3 does."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [i, 0, 0]}} for i in inputs]
    config = {"name": name, "dtype": {"class_name": "DTypePolicy", "config": {"name": "float32"}}, **arguments}
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
        "name": name,
        "inbound_nodes": [{"args": tensors, "kwargs": {}}] if inputs else [],
    }


def model(*layers: dict[str, Any], class_name: str = "Functional") -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "m", "layers": list(layers)}, "registered_name": class_name}
