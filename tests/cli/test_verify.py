"""moecc verify: what agrees, what differs, what is missing; layers; routing margins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
import pytest
from calling import Cli
from onnx import helper

Y = nets.dense_result(nets.X)


def verify(cli: Cli, model: Path, folder: Path, *options: object) -> str:
    return cli.fine("verify", model, folder, "--engine", "tcc", *options)


def verify_json(cli: Cli, model: Path, folder: Path, *options: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(verify(cli, model, folder, "--json", *options))
    return found


def differs(cli: Cli, model: Path, folder: Path, *options: object) -> tuple[str, str]:
    done = cli("verify", model, folder, "--engine", "tcc", *options)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout, done.stderr


# ---- outputs ----


def test_agrees(cli: Cli, dense: Path) -> None:
    nets.write_set(cli.place, 0, [nets.X], [Y])
    found = verify_json(cli, dense, cli.place)
    assert (found["model"], found["outputs"], found["wrong"], found["engine"]) == ("dense", 1, 0, "tcc")
    assert found["largest_relative_error"] < 1e-6
    [output] = found["sets"][0]["outputs"]
    assert (output["task"], output["output"], output["ok"]) == ("dense", "y", True)
    assert "routing" not in found["sets"][0]


@pytest.mark.parametrize("target", ["generic", "x86-64-v2"])
def test_of_a_target(cli: Cli, dense: Path, target: str) -> None:
    nets.write_set(cli.place, 0, [nets.X], [Y])
    found = json.loads(cli.fine("verify", dense, cli.place, "--target", target, "--json"))
    assert (found["engine"], found["target"], found["wrong"]) == ("cc", target, 0)
    assert verify_json(cli, dense, cli.place, "--target", target)["target"] == "generic", "tcc has no vectors"


def test_differs(cli: Cli, dense: Path) -> None:
    wrong = Y.copy()
    wrong[1, 3] += 0.01
    nets.write_set(cli.place, 0, [nets.X], [wrong])
    out, message = differs(cli, dense, cli.place)
    assert "FAILED" in out
    assert "largest at element 19" in out
    assert "1 of 1 outputs differ" in message
    out, _ = differs(cli, dense, cli.place, "--json")
    [output] = json.loads(out)["sets"][0]["outputs"]
    assert (output["ok"], output["element"]) == (False, 19)
    verify(cli, dense, cli.place, "--atol", "0.02")
    verify(cli, dense, cli.place, "--rtol", "0", "--atol", "0.02")
    differs(cli, dense, cli.place, "--rtol", "1e-9")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_no_agreement(cli: Cli, dense: Path, bad: float) -> None:
    wrong = Y.copy()
    wrong[0, 0] = bad
    nets.write_set(cli.place, 0, [nets.X], [wrong])
    out, _ = differs(cli, dense, cli.place, "--json")
    assert json.loads(out)["sets"][0]["outputs"][0]["error"] is None
    differs(cli, dense, cli.place, "--rtol", "1000", "--atol", "1000")


def test_other_shape_or_type_of_an_output(cli: Cli, dense: Path) -> None:
    for other in (Y[:1], Y.astype(np.float64)):
        nets.write_set(cli.place, 0, [nets.X], [other])
        out, _ = differs(cli, dense, cli.place)
        assert "is f32[2,16], expected" in out


# ---- data sets ----


def test_order_of_data_sets(cli: Cli, dense: Path) -> None:
    for number in (10, 2, 0):
        nets.write_set(cli.place, number, [nets.X], [Y])
    (cli.place / "test_data_set_x").mkdir()
    found = verify_json(cli, dense, cli.place)
    assert [s["set"] for s in found["sets"]] == ["test_data_set_0", "test_data_set_2", "test_data_set_10"]


def test_folder_that_is_a_data_set(cli: Cli, dense: Path) -> None:
    place = nets.write_set(cli.place, 0, [nets.X], [Y])
    assert " 0 wrong" in verify(cli, dense, place)


def test_input_missing(cli: Cli, tasks: Path) -> None:
    nets.write_set(cli.place, 0, [nets.X, np.array([0])], nets.tasks_results(nets.X, 0))
    (cli.place / "test_data_set_0" / "input_0.pb").unlink()
    _, message = differs(cli, tasks, cli.place)
    assert 'input_0.pb is missing: input 0 of the model, "x" f32[2,8]' in message


@pytest.mark.parametrize("given", [nets.X[:1], nets.X.astype(np.float64), nets.X.reshape(16), nets.X.astype(np.int32)])
def test_input_of_other_shape_or_type(cli: Cli, dense: Path, given: nets.Array) -> None:
    nets.write_set(cli.place, 0, [given], [Y])
    _, message = differs(cli, dense, cli.place)
    assert 'but it is for input 0 of the model, "x" f32[2,8]' in message


def test_damaged_tensor(cli: Cli, dense: Path) -> None:
    place = nets.write_set(cli.place, 0, [nets.X], [Y])
    data = (place / "output_0.pb").read_bytes()
    (place / "output_0.pb").write_bytes(data[:-3])
    _, message = differs(cli, dense, cli.place)
    assert "output_0.pb" in message


def test_missing_outputs_are_skipped(cli: Cli) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    io = [nets.value("x", (2, 8))], [nets.value("y", (2, 8)), nets.value("z", (2, 8))]
    path = cli.save(nets.model(nodes, *io))
    nets.write_set(cli.place, 0, [nets.X], [None, -nets.X])
    assert "test_data_set_0 y: skipped" in verify(cli, path, cli.place)
    assert verify_json(cli, path, cli.place)["sets"][0]["skipped"] == ["y"]
    (cli.place / "test_data_set_0" / "output_1.pb").unlink()
    _, message = differs(cli, path, cli.place)
    assert "no data set" in message
    assert "has an output" in message


# ---- tasks ----


@pytest.fixture
def task_sets(cli: Cli) -> Path:
    """Set N gives `which` = N; set 2 is of a task that does not exist."""
    for which in (0, 1, 2):
        nets.write_set(cli.place, which, [nets.X, np.array([which])], nets.tasks_results(nets.X, which))
    return cli.place


def test_bound_tasks(cli: Cli, tasks: Path, task_sets: Path) -> None:
    found = verify_json(cli, tasks, task_sets)
    said = [[(o["task"], o["output"]) for o in s["outputs"]] for s in found["sets"]]
    assert said == [[("left", "a")], [("right", "b")], []]
    assert found["outputs"] == 2
    right = verify_json(cli, tasks, task_sets, "--task", "right")["sets"]
    assert [[o["task"] for o in s["outputs"]] for s in right] == [[], ["right"], []]


def test_layers_of_several_tasks(cli: Cli, tasks: Path, task_sets: Path) -> None:
    found = verify_json(cli, tasks, task_sets, "--layers")
    for each in found["sets"]:
        assert each["first_that_differs"] is None
        names = [layer["value"] for layer in each["layers"]]
        assert "trunk" in names
        assert len(names) == len(set(names)) >= 3
        assert all(layer["ok"] for layer in each["layers"])


# ---- layers ----


def chain() -> onnx.ModelProto:
    """LayerNorm and attention in small operators, a GELU, sums: much for the passes to do."""
    w = [nets.constant(f"w{i}", nets.noise(i, 8, 8)) for i in range(3)]
    numbers = {"two": 2.0, "eps": 1e-5, "half": 0.5, "one": 1.0, "root": 2**0.5, "scale": 8**-0.5}
    constants = w + [nets.constant(k, np.array(v, np.float32)) for k, v in numbers.items()]
    constants.append(nets.constant("last", np.array([-1])))

    def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), [output], name=f"make_{output}", **attributes)  # type: ignore[arg-type]

    nodes = [
        node("ReduceMean", "x last", "mean"), node("Sub", "x mean", "centred"), node("Pow", "centred two", "squared"),
        node("ReduceMean", "squared last", "variance"), node("Add", "variance eps", "safe"), node("Sqrt", "safe", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("MatMul", "normal w0", "q"), node("MatMul", "normal w1", "kk"), node("MatMul", "normal w2", "v"),
        node("Transpose", "kk", "kt", perm=[0, 1, 3, 2]), node("MatMul", "q kt", "raw"), node("Mul", "raw scale", "scaled"),
        node("Softmax", "scaled", "weights", axis=-1), node("MatMul", "weights v", "mixed"), node("Add", "mixed x", "sum"),
        node("Div", "sum root", "argument"), node("Erf", "argument", "erf"), node("Add", "erf one", "plus"),
        node("Mul", "sum plus", "product"), node("Mul", "product half", "y"),
    ]  # fmt: skip
    shape = (1, 2, 5, 8)
    return nets.model(nodes, [nets.value("x", shape)], [nets.value("y", shape)], constants)


def test_layers_without_expected_outputs(cli: Cli) -> None:
    path = cli.save(chain())
    nets.write_set(cli.place, 0, [nets.noise(9, 1, 2, 5, 8)], [])
    found = verify_json(cli, path, cli.place, "--layers")
    names = [layer["value"] for layer in found["sets"][0]["layers"]]
    assert names[-1] == "y"
    assert {"normal", "mixed", "sum"} & set(names)
    assert "squared" not in names, "what a pass has merged is not compared"
    text = verify(cli, path, cli.place, "--layers")
    assert f"layers: {len(names)} values agree" in text


def test_layers_with_vectors(cli: Cli) -> None:
    """Built by the system's compiler: other kernels than the reference's."""
    path = cli.save(chain())
    nets.write_set(cli.place, 0, [nets.noise(9, 1, 2, 5, 8)], [])
    found = json.loads(cli.fine("verify", path, cli.place, "--layers", "--json", "--threads", "2"))
    assert found["engine"] == "cc"
    assert found["sets"][0]["first_that_differs"] is None


def test_layers_names_what_differs(cli: Cli) -> None:
    """With a tolerance that nothing can meet, the first difference in the order of computation is named."""
    path = cli.save(chain())
    nets.write_set(cli.place, 0, [100 * nets.noise(9, 1, 2, 5, 8)], [])
    out, message = differs(cli, path, cli.place, "--layers", "--json", "--rtol", "0", "--atol", "0")
    one = json.loads(out)["sets"][0]
    first = next(layer["value"] for layer in one["layers"] if not layer["ok"])
    named = one["first_that_differs"]
    assert named["value"] == first
    assert named["kernel"]
    assert named["operator"]
    assert "a layer differs" in message
    text, _ = differs(cli, path, cli.place, "--layers", "--rtol", "0", "--atol", "0")
    assert f'the first that differs is "{first}"' in text
    assert f"kernel {named['kernel']}" in text


def test_layers_of_a_recognised_mixture(cli: Cli) -> None:
    path = cli.save(nets.moe())
    x = nets.noise(11, 6, 8)
    nets.write_set(cli.place, 0, [x], [nets.moe_result(x)[0]])
    names = [layer["value"] for layer in verify_json(cli, path, cli.place, "--layers")["sets"][0]["layers"]]
    assert names == ["scores", "y"]


# ---- routing ----


def test_routing_margin(cli: Cli) -> None:
    path = cli.save(nets.moe())
    wanted = []
    for number in range(3):
        x = nets.noise(20 + number, 6, 8)
        y, margin = nets.moe_result(x)
        wanted.append(margin)
        nets.write_set(cli.place, number, [x], [y])
    sets = verify_json(cli, path, cli.place)["sets"]
    assert [s["routing"]["margin"] for s in sets] == pytest.approx(wanted, rel=1e-5)
    assert {s["routing"]["of"] for s in sets} == {"probability"}
    text = verify(cli, path, cli.place)
    assert f"test_data_set_1 routing: smallest margin {wanted[1]:.3g} (probability)" in text
    assert "task net" in text


def test_no_routing_margin_when_all_experts_are_chosen(cli: Cli) -> None:
    proto = nets.moe()
    for attribute in proto.graph.node[1].attribute:
        if attribute.name == "k":
            attribute.i = nets.MOE["experts"]
    path = cli.save(proto)
    nets.write_set(cli.place, 0, [nets.noise(1, 6, 8)], [nets.noise(2, 6, 8)])
    out, _ = differs(cli, path, cli.place, "--json")
    assert json.loads(out)["sets"][0]["routing"] is None


def test_temporary_files_go_also_when_it_fails(cli: Cli, dense: Path) -> None:
    nets.write_set(cli.place, 0, [nets.X[:1]], [Y])
    differs(cli, dense, cli.place)
    shutil.rmtree(cli.place / "test_data_set_0")
    differs(cli, dense, cli.place)
