"""inspect MODEL --html: the page of a model, and the figures that it shares with --json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
import pytest
from calling import Cli
from onnx import TensorProto, helper
from pages import Page, needs_nothing_else

NASTY = "<b>&\"'</script><!--\u00e9\U0001f642"  # without spaces and commas, which separate names of outputs


def page(cli: Cli, model: Path, *options: str) -> Page:
    done = cli("inspect", model, "--html", "page.html", *options)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return Page((cli.place / "page.html").read_text())


def about(cli: Cli, model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli.fine("inspect", model, "--json"))
    return found


def facts(found: Page) -> dict[str, str]:
    return dict(zip(found.texts["dt"], found.texts["dd"], strict=True))


def test_page(cli: Cli, tasks: Path) -> None:
    found = page(cli, tasks)
    text = (cli.place / "page.html").read_text()
    assert needs_nothing_else(text), "the page needs something else"
    assert "prefers-color-scheme: dark" in text
    assert "@@" not in text
    assert ("name", "viewport") in found.attributes
    assert found.texts["h1"] == ["tasks_net"]
    assert facts(found)["opsets"] == "ai.onnx 20, com.microsoft 1"
    assert facts(found)["tasks"] == "2"
    ports = found.tables["ports"][1:]
    assert ports == [
        ["input", "x", "f32[2,8]", "all"],
        ["output", "a", "f32[2,8]", "left"],
        ["output", "b", "f32[2,8]", "right"],
    ]
    assert [row[:3] for row in found.tables["tasks"][2:]] == [["left", "a", "which = 0"], ["right", "b", "which = 1"]]
    assert found.tables["moe"][1:] == [["none"]]


def test_what_tasks_share(cli: Cli, tasks: Path) -> None:
    """The product x·w is of both tasks; what follows is each one's own."""
    known = about(cli, tasks)
    left, right = known["tasks"]
    w = 8 * 8
    for task in (left, right):
        assert task["nodes"] - task["own_nodes"] == 1, "the product"
        assert task["parameters"] - task["own_parameters"] == w
        assert task["weight_bytes"] - task["own_weight_bytes"] == 4 * w
    assert known["nodes"] == left["nodes"] + right["own_nodes"]
    assert known["parameters"] == left["parameters"] + right["own_parameters"]
    assert known["weight_bytes"] == left["weight_bytes"] + right["own_weight_bytes"]
    found = page(cli, tasks)
    assert [[int(cell) for cell in (row[3], row[4], row[6], row[7])] for row in found.tables["tasks"][2:]] == [
        [task["nodes"], task["parameters"], task["own_nodes"], task["own_parameters"]] for task in (left, right)
    ]
    shares = found.tables["shares"][1:]
    assert [row[0] for row in shares] == ["all", "left", "right"]
    assert shares[0][1:4] == ["1", str(w), f"{4 * w} B"]
    assert sum(int(row[2]) for row in shares) == known["parameters"] == int(facts(found)["parameters"])


def test_one_task_of_two(cli: Cli, tasks: Path) -> None:
    found = page(cli, tasks, "--task", "right")
    assert [row[0] for row in found.tables["tasks"][2:]] == ["right"]
    assert [row[0] for row in found.tables["shares"][1:]] == ["right"]


def test_operators_and_nodes(cli: Cli, dense: Path) -> None:
    known, found = about(cli, dense), page(cli, dense)
    assert {row[0]: int(row[1]) for row in found.tables["operators"][1:]} == known["operators"]
    nodes = found.tables["nodes"][1:]
    assert len(nodes) == known["nodes"] == int(facts(found)["nodes after the passes"])
    assert int(facts(found)["nodes in the model"]) == known["nodes_read"] == 3
    plain = page(cli, dense, "--no-fuse").tables["nodes"][1:]
    assert [row[0] for row in plain] == ["MatMul", "Add", "Erf"]
    assert plain[0][2] == "f32[2,8] xf32[8,16] w"
    assert plain[0][3] == "f32[2,16] xw"
    assert [row[0] for row in nodes] == ["MatMul + Add + Erf"]


def test_layers_of_experts(cli: Cli) -> None:
    found = page(cli, cli.save(nets.moe(), "moe"))
    (row,) = found.tables["moe"][1:]
    w, i = nets.MOE["width"], nets.MOE["inner"]
    assert row[1] == f"{nets.MOE['k']} of {nets.MOE['experts']}"
    assert row[2] == "gate softmax, relu"
    assert row[3:] == [str(nets.MOE["tokens"]), f"{w} \u2192 {i} \u2192 {w}", str(2 * w * i), "moe"]


def test_large_numbers(cli: Cli) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    weights = [nets.constant("w", nets.noise(1, 1234, 1000))]
    net = cli.save(nets.model([node], [nets.value("x", (1, 1234))], [nets.value("y", (1, 1000))], weights))
    assert facts(page(cli, net))["parameters"] == "1,234,000"
    assert facts(page(cli, net))["weights"] == "4.94 MB"


def nasty() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", [f"x{NASTY}", f"w{NASTY}"], [f"h{NASTY}"], name=f"/layer{NASTY}/product"),
        helper.make_node("Softmax", [f"h{NASTY}"], [f"y{NASTY}"], name=f"node{NASTY}"),
    ]
    inputs, outputs = [nets.value(f"x{NASTY}", (2, 8))], [nets.value(f"y{NASTY}", (2, 8))]
    bound = nets.value(f"k{NASTY}", (1,), TensorProto.FLOAT)
    nodes.insert(1, helper.make_node("Add", [f"h{NASTY}", bound.name], [f"s{NASTY}"], name="add"))
    nodes[2].input[0] = f"s{NASTY}"
    meta = {f"moecc.task.task{NASTY}": f"outputs=y{NASTY} bind=k{NASTY}:2"}
    net = nets.model(nodes, [*inputs, bound], outputs, [nets.constant(f"w{NASTY}", nets.noise(1, 8, 8))], meta)
    net.opset_import.append(helper.make_opsetid(f"domain{NASTY}", 3))
    return net


def test_unusual_names(cli: Cli) -> None:
    net = cli.place / "a<b>&\"'.onnx"
    net.write_bytes(nasty().SerializeToString())
    found = page(cli, net)
    text = (cli.place / "page.html").read_text()
    for markup in ("<b>", "<!--", "&\"'"):
        assert markup not in text
    assert text.count("</script>") == text.count("<script>") == 1
    assert any(net.name in line for line in found.texts["p"])
    assert f"domain{NASTY} 3" in facts(found)["opsets"]
    assert [row[1] for row in found.tables["ports"][1:]] == [f"x{NASTY}", f"y{NASTY}"]
    (task,) = found.tables["tasks"][2:]
    assert task[:3] == [f"task{NASTY}", f"y{NASTY}", f"k{NASTY} = 2"]
    assert found.tables["shares"][1][0] == f"task{NASTY}"
    nodes = found.tables["nodes"][1:]
    assert any(row[1].startswith(f"/layer{NASTY}/product") for row in nodes)
    assert any(f"w{NASTY}" in row[2] for row in nodes)
    assert any(f"y{NASTY}" in row[3] for row in nodes)
    assert json.loads(cli.fine("inspect", net, "--json"))["opsets"][f"domain{NASTY}"] == 3


@pytest.mark.parametrize("control", ["\x1b", "\x7f", "\r"])
def test_control_characters(cli: Cli, control: str) -> None:
    net = nets.relu()
    net.graph.node[0].name = f"a{control}b"
    page(cli, cli.save(net, "net"))
    assert control not in (cli.place / "page.html").read_bytes().decode()


def test_a_page_is_written_whole_or_not_at_all(cli: Cli, dense: Path) -> None:
    assert 'cannot write "none/page.html"' in cli.fails(3, "inspect", dense, "--html", "none/page.html")
    (cli.place / "page.html").write_text("before")
    np.save(cli.place / "no-model.onnx", nets.X)
    cli.fails(1, "inspect", "no-model.onnx", "--html", "page.html")
    assert (cli.place / "page.html").read_text() == "before"
    assert len(list(cli.place.glob("page.html*"))) == 1
