"""Compiles a network and the program that runs it (harness.c), and keeps both under a stamp of what they were made from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import RUNTIME, SERVE, Program, Settings, arguments, cached, run

HERE = Path(__file__).resolve().parent
NPY = {"f32": "f4", "i64": "i8", "i32": "i4", "u8": "u1", "b8": "b1", "i8": "i1", "f64": "f8"}
TAKES = ("moecc_take", "moecc_take_expert")


@dataclass(frozen=True)
class Built:
    program: Path
    weights: Path
    inputs: Path
    report: dict[str, Any]

    def command(self, source: str, threads: int) -> list[str]:
        return [str(self.program), str(self.weights), str(self.inputs), source, str(threads)]

    @property
    def tasks(self) -> list[str]:
        return [task["task"] for task in self.report["tasks"]]

    @property
    def pack_bytes(self) -> int:
        return int(self.report["pack_bytes"])


def port_row(port: dict[str, Any]) -> str:
    """Of the table that serve/ports.c reads: report.json says f32[1,3,128,256]."""
    kind, dims = re.fullmatch(r"(\w+)\[([\d,]*)\]", port["shape"]).groups()  # type: ignore[union-attr]
    rank = len(dims.split(",")) if dims else 0
    return f'  {{"{port["name"]}", {{"{NPY[kind]}", {rank}, {{{dims or 0}}}}}, 0}},'


def table(report: dict[str, Any]) -> str:
    """C: ports and tasks."""
    ports: dict[str, dict[str, Any]] = {}
    for key in ("inputs", "outputs"):
        for task in report["tasks"]:
            ports.update({port["name"]: port for port in task[key]})
    inputs = {port["name"] for task in report["tasks"] for port in task["inputs"]}
    places = {name: place for place, name in enumerate(ports)}
    calls, rows = [], []
    for number, task in enumerate(report["tasks"]):
        own = [port["name"] for key in ("inputs", "outputs") for port in task[key]]
        body = f"return outcome({task['function']}(&network, {arguments(len(own))}));"
        calls.append(f"static const char *call{number}(void *const *d) {{ {body} }}")
        rows.append(f'  {{"{task["task"]}", call{number}, {len(own)}, {{{", ".join(str(places[n]) for n in own)}}}}},')
    lines = [
        '#include "network.h"',
        *calls,
        "Port ports[] = {",
        *(port_row(port) for port in ports.values()),
        "};",
        f"const int n_inputs = {len(inputs)}, n_ports = {len(ports)};",
        "const Task tasks[] = {",
        *rows,
        "};",
        f"const int n_tasks = {len(rows)};",
        "",
    ]
    return "\n".join(lines)


def program(code: Path, folder: Path, report: dict[str, Any]) -> Path:
    (folder / "table.c").write_text(table(report))
    flags = (code / "build/flags").read_text().split()
    sources = [HERE / "harness.c", HERE / "sources.c", SERVE / "ports.c", folder / "table.c", RUNTIME / "moecc_npy.c"]
    wrapped = [f"-Wl,--wrap={name}" for name in TAKES]
    made = folder / "program"
    places = [f"-I{place}" for place in (code, HERE, SERVE)]
    if (code / "moecc_rt_direct.c").exists():
        places.append("-DWITH_DIRECT")
    command = [*flags, *places, *map(str, sources), str(code / "build/libnet.a"), "-o", str(made), *wrapped]
    run([*command, "-Wl,--gc-sections", "-lm", "-lpthread"])
    return made


def build(settings: Settings, network: Path, mode: str, *options: str) -> Built:
    """mode: of --weights."""
    model = network / "model.onnx"

    def make(folder: Path) -> Program:
        code = folder / "net"
        command = [str(settings.moecc), "compile", str(model), "-o", str(code), "--name", "net", "--weights", mode]
        run([*command, "--target", settings.target, *options, "--quiet"])
        run(["make", "-s", "-C", str(code), f"CC={settings.cc}", "build/libnet.a"])
        report = json.loads((code / "report.json").read_text())
        return Program([str(program(code, folder, report))])

    folder = network / mode
    own = [*sorted(HERE.glob("*.[ch]")), *sorted(SERVE.glob("ports.*")), HERE / "build.py"]
    made = cached(folder, [settings.moecc, network / "network.json", *own, settings.cc, settings.target, *options], make)
    report = json.loads((folder / "net/report.json").read_text())
    return Built(Path(made.command[0]), folder / "net/net_weights.bin", network / "inputs", report)
