"""Test networks on disk, in the layout of ONNX's own tests.

    DIR/NAME/model.onnx
    DIR/NAME/test_data_set_0/input_0.pb, output_0.pb, ...

A network is written under a temporary name and renamed when it is whole, so
that a run which was interrupted leaves nothing that looks finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# Between the last expert chosen and the first not chosen, in float64: two scores that
# are closer may be ordered differently in float32.
ROUTING_MARGIN = 1e-5

Array = NDArray[np.generic]
Tensors = Mapping[str, Array]


@dataclass
class Network:
    """A model and the runs it is tested with: (inputs, expected outputs) by name."""

    model: onnx.ModelProto
    runs: Sequence[tuple[Tensors, Tensors]]


def expected(values: Array) -> Array:
    """What is stored of an expected output: float64 becomes float32, the rest stays."""
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype == np.float64 else values


def write_network(folder: Path, network: Network) -> None:
    """Writes the network to `folder`, which appears whole or not at all."""
    initializers = {t.name for t in network.model.graph.initializer}
    inputs = [i.name for i in network.model.graph.input if i.name not in initializers]
    outputs = [o.name for o in network.model.graph.output]
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    onnx.save(network.model, temporary / "model.onnx")
    for run, (given, wanted) in enumerate(network.runs):
        data = temporary / f"test_data_set_{run}"
        data.mkdir()
        for kind, names, values in (("input", inputs, given), ("output", outputs, wanted)):
            if set(names) != set(values):
                raise ValueError(f"{folder.name}: {kind}s are {names}, got {list(values)}")
            for i, name in enumerate(names):
                tensor = numpy_helper.from_array(np.asarray(values[name], order="C"), name)
                (data / f"{kind}_{i}.pb").write_bytes(tensor.SerializeToString())
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
