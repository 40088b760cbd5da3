"""inspect DIR: memory, stack and reads of a compiled folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nets
import pytest
from calling import Cli

NANO = Path(__file__).parents[2] / "examples" / "nano" / "nano.onnx"
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6}


def amount(cell: str) -> float:
    number, *unit = cell.split()
    return float(number) * (UNITS[unit[0]] if unit else 1)


def rows(text: str) -> dict[str, dict[str, float]]:
    """The table: by task, then by title. Columns end where their titles do."""
    lines = text.split("\n\n")[1].splitlines()
    ends = [m.end() for m in re.finditer(r"\S+( all)?", lines[0])]
    titles = re.findall(r"\S+ all|\S+", lines[0])
    found: dict[str, dict[str, float]] = {}
    for line in lines[1:]:
        name = re.match(r"\S+", line)
        assert name
        cells = {title: line[begin:end].strip() for title, begin, end in zip(titles[1:], ends, ends[1:], strict=False)}
        cells[titles[1]] = cells[titles[1]].removeprefix(name[0][ends[0] :]).strip()
        found[name[0]] = {title: amount(cell) for title, cell in cells.items() if cell}
    return found


def report_of(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cli.place / "out" / "report.json").read_text())
    return found


@pytest.mark.parametrize("mode", ["file", "embed", "stream"])
def test_table(cli: Cli, mode: str) -> None:
    cli.fine(
        "compile",
        NANO,
        "-o",
        "out",
        "--target",
        "generic",
        "--weights",
        mode,
        *(["--resident", "100000"] if mode == "stream" else []),
    )
    done = cli("inspect", "out")
    assert (done.returncode, done.stderr) == (0, "")
    found, report = rows(done.stdout), report_of(cli)
    assert list(found) == ["semseg", "depth", "normals", "edge", "sal", "(all)"]
    for name, task in [(t["task"], t) for t in report["tasks"]] + [("(all)", report["all_tasks"])]:
        wanted = {
            "arena": task["ram"]["arena"],
            "scratch": task["ram"]["scratch_per_thread"],
            "stack": task["stack"]["caller"],
        }
        if name != "(all)":
            wanted["weights"] = task["weight_bytes"]
        if mode == "stream":
            wanted |= {
                "buffers": task["ram"]["stream_buffers"],
                "resident": task["ram"]["resident"],
                "in all": task["ram"]["one_thread_streaming"],
                "read": task["reads_worst_case"]["bytes"],
                "reads": task["reads_worst_case"]["slots"],
            }
            assert wanted["resident"] > 0
        assert set(found[name]) == set(wanted)
        for title, value in wanted.items():
            assert found[name][title] == pytest.approx(value, rel=0.01), (name, title)
        for title in wanted:
            assert re.search(rf"^{title} +\w", done.stdout, re.MULTILINE), f"{title} is not explained"


def test_one_task(cli: Cli, dense: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    assert list(rows(cli.fine("inspect", "out"))) == ["dense"]


def test_json(cli: Cli, tasks: Path) -> None:
    cli.fine("compile", tasks, "-o", "out", "--weights", "stream")
    found, report = json.loads(cli.fine("inspect", "out", "--json")), report_of(cli)
    for key in ("name", "model", "target", "weights", "pack_bytes", "units", "stream_buffer_bytes"):
        assert found[key] == report[key]
    groups = ("ram", "reads_worst_case", "queue_bytes", "stack")
    assert found["all_tasks"] == {key: report["all_tasks"][key] for key in groups}
    keys = ("task", "macs", "weight_bytes", *groups)
    assert found["tasks"] == [{key: task[key] for key in keys} for task in report["tasks"]]


def test_what_is_no_compiled_folder(cli: Cli, dense: Path) -> None:
    (cli.place / "none").mkdir()
    assert "no MANIFEST" in cli.fails(1, "inspect", "none")
    cli.fine("compile", dense, "-o", "out")
    path = cli.place / "out" / "report.json"
    report = report_of(cli)
    for damaged in ("", "{", "[]", "{}", json.dumps(report | {"tasks": 3})):
        path.write_text(damaged)
        cli.fails(1, "inspect", "out")
    del report["tasks"][0]["ram"]["arena"]
    path.write_text(json.dumps(report))
    for options in ([], ["--json"]):
        done = cli("inspect", "out", *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert 'lacks "arena"' in done.stderr
    path.unlink()
    assert "report.json" in cli.fails(3, "inspect", "out")


def test_other_forms_are_for_models(cli: Cli, dense: Path) -> None:
    cli.fine("compile", dense, "-o", "out")
    assert "--html is for a model" in cli.fails(2, "inspect", "out", "--html", "page.html")
    assert "--text is for a model" in cli.fails(2, "inspect", "out", "--text")


def test_names_of_a_report(cli: Cli) -> None:
    net = nets.tasks()
    props = {p.key: p.value for p in net.metadata_props}
    del net.metadata_props[:]
    name = 'a-rather-"long"-name\\of-a-task-\u00e9'
    net.metadata_props.add(key=f"moecc.task.{name}", value=props["moecc.task.left"])
    cli.fine("compile", cli.save(net, "named"), "-o", "out")
    assert json.loads(cli.fine("inspect", "out", "--json"))["tasks"][0]["task"] == name
    assert name in cli.fine("inspect", "out")
