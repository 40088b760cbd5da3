"""Mixture-of-experts layers in many spellings, each with inputs and outputs computed in float64.

Every function of moe_spellings.py builds one ONNX graph around the same small layer, and moe_torch.py exports PyTorch
modules. They are written the way people and exporters write such layers, so that recognition by meaning is put to the
test: all must become one single node, except those in NEGATIVE, which look like such a layer and are none.

    make_moe_variants.py OUT                 writes OUT/<case>/model.onnx and test_data_set_0
    make_moe_variants.py OUT --moecc PROGRAM checks each case with `inspect --json` and `verify`
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import onnx
from moe_layer import CASES, OPSET, Array, Builder, Layer, Spelling, make_weights, reference, write_data
from moe_spellings import NEGATIVE
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# ---- writing and checking


def write_case(folder: Path, layer: Layer, build: Spelling, expected: Array | None = None) -> None:
    b = Builder(layer, make_weights(layer))
    y = build(b)
    b.nodes.append(helper.make_node("Identity", [y], ["y"]))
    dims = [*layer.lead, layer.hidden]
    graph = helper.make_graph(
        b.nodes,
        folder.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(array, name) for name, array in b.constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=b.functions)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    x = b.w.x.reshape(dims)
    write_data(folder, model, x, reference(layer, b.w) if expected is None else expected)


def write_all(out: Path, with_torch: bool) -> dict[str, int]:
    counts = {}
    for name, (layer, build) in CASES.items():
        write_case(out / name, layer, build)
        counts[name] = 1
    for title, build in NEGATIVE.items():
        name = "not_" + title.replace(" ", "_")
        layer = Layer()
        write_case(out / name, layer, build)
        model = onnx.load(out / name / "model.onnx")
        x = make_weights(layer).x
        computed = ReferenceEvaluator(model).run(None, {"x": x})
        assert isinstance(computed, list)
        write_data(out / name, model, x, computed[0])
        counts[name] = 0
    if with_torch:
        from moe_torch import torch_cases

        counts |= torch_cases(out)
    (out / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
    return counts


def check(program: str, out: Path, counts: dict[str, int]) -> int:
    failed = 0
    for name, wanted in counts.items():
        model = str(out / name / "model.onnx")
        shown = subprocess.run([program, "inspect", model, "--json"], capture_output=True, text=True)
        found = len(json.loads(shown.stdout)["moe"]) if shown.returncode == 0 else -1
        verified = subprocess.run(
            [program, "verify", model, str(out / name), "--engine", "tcc"], capture_output=True, text=True
        )
        if found != wanted or verified.returncode != 0:
            failed += 1
            print(f"FAILED {name}: {found} Moe nodes, {wanted} wanted; verify exits {verified.returncode}")
            print(shown.stderr, verified.stderr, sep="")
    print(f"{len(counts) - failed} of {len(counts)} spellings recognised and right")
    return 1 if failed or not counts else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--moecc", help="check with this program")
    parser.add_argument("--no-torch", action="store_true", help="without the cases that need PyTorch")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    counts = write_all(options.out, not options.no_torch)
    return check(options.moecc, options.out, counts) if options.moecc else 0


if __name__ == "__main__":
    sys.exit(main())
