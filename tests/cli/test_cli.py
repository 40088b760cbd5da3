"""Commands, options, exit statuses, and where output goes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import nets
import numpy as np
import onnx
import pytest
from calling import Cli
from onnx import helper

COMMANDS = ("compile", "run", "verify", "bench", "tune", "build", "inspect", "ops")

# Name, what it needs in front of it, and arguments: the design's options that are not built yet.
NOT_BUILT = [
    ("compile", "MODEL -o out --target cortex-m7"),
    ("compile", "MODEL -o out --target cortex-m55"),
    ("compile", "MODEL -o out --target wasm32"),
    ("compile", "MODEL -o out --precision bf16"),
    ("compile", "MODEL -o out --precision int8"),
]

BAD_USAGE = [
    ("", r"moecc COMMAND --help"),
    ("fly", r'there is no command "fly"'),
    ("compile", r"usage: moecc compile MODEL\.onnx -o DIR"),
    ("compile MODEL", r"-o DIR"),
    ("compile MODEL other -o out", r"usage: moecc compile"),
    ("compile MODEL a b -o out", r'"b" is one argument too many'),
    ("compile MODEL -o", r"-o wants a value"),
    ("compile MODEL -o -", r"-o wants a name of a folder"),
    ("compile MODEL -o --name", r"--name looks like an option"),
    ("compile - -o out", r"stdin"),
    ("compile MODEL -o out --frobnicate", r"there is no option --frobnicate"),
    ("compile MODEL -o out --json", r"there is no option --json"),
    ("compile MODEL -o out --strict=1", r"--strict takes no value"),
    ("compile MODEL -o out --target vax", r'there is no target "vax"; there are: native, generic'),
    ("compile MODEL -o out --weights lead", r"--weights wants one of file, embed, stream"),
    ("compile MODEL -o out --weights stream --resident", r"--resident wants a value"),
    ("compile MODEL -o out --weights stream --resident -1", r"--resident wants a whole number"),
    ("compile MODEL -o out --weights stream --resident 1MB", r'--resident wants a whole number, not "1MB"'),
    ("compile MODEL -o out --resident 4096", r"--resident is for --weights stream"),
    ("compile MODEL -o out --weights embed --resident 0", r"--resident is for --weights stream"),
    ("compile MODEL -o out --precision f8", r"--precision wants one of f32"),
    ("compile MODEL -o out --moe both", r"--moe wants one of expert-major, token-major"),
    ("compile MODEL -o out --gelu relu", r"--gelu wants one of model, erf, tanh"),
    ("compile MODEL -o out --dump nothing", r'there is no pass "nothing"; there are: infer'),
    ("compile MODEL -o out --no-infer", r"nothing can be compiled without"),
    ("compile MODEL -o out --no-nothing", r"there is no option --no-nothing"),
    ("compile MODEL -o out --bind x", r"--bind wants INPUT=VALUE"),
    ("compile MODEL -o out --bind z=1", r'the model has no input "z"'),
    ("compile MODEL -o out --dim n", r"--dim wants NAME=N"),
    ("compile MODEL -o out --dim n=0", r"--dim wants a whole number from 1"),
    ("compile MODEL -o out --dim n=99999999999999999999", r"--dim wants a whole number"),
    ("compile MODEL -o out --dim n=3", r"no free dimension"),
    ("compile MODEL -o out --task fly", r'there is no task "fly"; the model has: dense'),
    ("compile MODEL -o out --task dense,dense", r'twice the task "dense"; the model has: dense'),
    ("compile MODEL -o out --task ,dense", r"--task wants names"),
    ("compile MODEL -o out --quiet --verbose", r"exclude each other"),
    ("compile MODEL -o .", r"no name of its own"),
    ("run MODEL -o out", r'the input "x" f32\[2,8\] is not given'),
    ("run MODEL --input x=x.npy", r"-o OUT"),
    ("run MODEL --input x -o out", r"--input wants NAME=FILE"),
    ("run MODEL --input x=- -o out", r"wants a file"),
    ("run MODEL --input z=MODEL -o out", r'the model has no input "z"; it has "x"'),
    ("run MODEL --input x=MODEL --input x=MODEL -o out", r'"x" is given twice'),
    ("run MODEL --engine gcc -o out", r"--engine wants one of cc, tcc"),
    ("verify MODEL", r"usage: moecc verify MODEL\.onnx FOLDER"),
    ("verify MODEL . --rtol -1", r"--rtol wants a number"),
    ("verify MODEL . --atol inf", r"--atol wants a number"),
    ("verify . .", r"verify wants a model"),
    ("bench MODEL --runs 0", r"--runs wants a whole number from 1"),
    ("bench MODEL --threads 65", r"at most 64"),
    ("bench MODEL --threads 2 --cpu-time", r"one thread"),
    ("run MODEL -o out --trace -", r"--trace wants a file"),
    ("bench MODEL --source disk", r'--source wants one of memory, map, loader, file, direct, copy, not "disk"'),
    ("run MODEL -o out --weights embed --source map", r"--source map is for weights in a file; --weights embed"),
    ("compile MODEL -o out --source map", r"there is no option --source"),
    ("bench MODEL --resident 4096", r"--resident is for --weights stream"),
    ("run MODEL -o out --source memory --stream-buffer 4096", r"--stream-buffer is for --weights stream"),
    ("inspect MODEL --json --text", r"exclude each other"),
    ("inspect MODEL --html -", r"--html wants a file"),
    ("ops MODEL", r"usage: moecc ops"),
]

BAD_MODEL = [
    ("compile none.onnx -o out", r"none\.onnx.*No such file"),
    ("inspect none.onnx", r"none\.onnx"),
    ("inspect .", r"no MANIFEST"),
    ("run MODEL --input x=none.npy -o out", r'input "x".*none\.npy.*No such file'),
    ("run MODEL --input x=. -o out", r'input "x".*folder|directory'),
    ("run MODEL --input x=MODEL -o out --engine tcc", r"picture|PNG|JPEG"),
    ("verify MODEL none", r"none.*No such file"),
    ("verify MODEL .", r"holds no test_data_set_0"),
    ("build .", r"no MANIFEST"),
    ("build none", r"no MANIFEST"),
    ("bench .", r"no MANIFEST"),
]


def words(line: str, model: Path) -> list[str]:
    return [word.replace("MODEL", str(model)) for word in line.split()]


# ---- statuses and messages ----


@pytest.mark.parametrize(("line", "message"), BAD_USAGE, ids=[line or "nothing" for line, _ in BAD_USAGE])
def test_bad_usage(cli: Cli, dense: Path, line: str, message: str) -> None:
    done = cli(*words(line, dense))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert sorted(p.name for p in cli.place.iterdir()) == ["dense.onnx", "temporary"]


@pytest.mark.parametrize(("command", "line"), NOT_BUILT, ids=[f"{command} {line}" for command, line in NOT_BUILT])
def test_not_built_yet(cli: Cli, dense: Path, command: str, line: str) -> None:
    assert "not built yet" in cli.fails(2, command, *words(line, dense))
    assert not (cli.place / "out").exists()


@pytest.mark.parametrize(("line", "message"), BAD_MODEL, ids=[line for line, _ in BAD_MODEL])
def test_bad_model_or_data(cli: Cli, dense: Path, line: str, message: str) -> None:
    done = cli(*words(line, dense))
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert sorted(p.name for p in cli.place.iterdir()) == ["dense.onnx", "temporary"]


def test_help(cli: Cli) -> None:
    for arguments in (["--help"], ["-h"], ["help"]):
        done = cli(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"moecc {command}" in done.stdout for command in COMMANDS)
    for command in COMMANDS:
        for arguments in ([command, "--help"], ["help", command], [command, "-h", "--nonsense"]):
            done = cli(*arguments)
            assert (done.returncode, done.stderr) == (0, ""), arguments
            assert f"usage: moecc {command}" in done.stdout
            assert "--quiet" in done.stdout


def test_help_says_units_and_defaults(cli: Cli) -> None:
    text = cli.fine("bench", "--help")
    for what in ("default: 20", "default: 1", "milliseconds", "bytes"):
        assert what in text


def test_version(cli: Cli) -> None:
    assert re.fullmatch(r"moecc \d+\.\d+\.\d+\n", cli.fine("--version"))


def test_double_dash_ends_the_options(cli: Cli) -> None:
    cli.save(nets.relu(), "--net")
    assert "net" in cli.fine("inspect", "--", "--net.onnx")


def test_option_with_equals(cli: Cli, dense: Path) -> None:
    cli.fine("compile", dense, "-o", "out", "--name=other", "--target=generic")
    assert (cli.place / "out" / "other.h").exists()


# ---- tasks ----


def test_unknown_and_duplicate_tasks_list_the_tasks(cli: Cli, tasks: Path) -> None:
    for command in (["compile", tasks, "-o", "out"], ["inspect", tasks], ["bench", tasks]):
        for wanted in ("up", "left,up", "left,left"):
            assert "the model has: left, right" in cli.fails(2, *command, "--task", wanted)
    assert "left" in cli.fine("inspect", tasks, "--task", "left", "--task", "right")
    assert "all of them" in cli.fails(2, "inspect", tasks, "--task", "all,left")


def test_unknown_task_of_a_folder(cli: Cli, tasks: Path) -> None:
    cli.fine("compile", tasks, "-o", "out", "--target", "generic")
    message = cli.fails(2, "bench", "out", "--engine", "tcc", "--task", "up")
    assert "left" in message
    assert "right" in message


# ---- standard output and standard error ----


def test_compile_has_no_results_on_stdout(cli: Cli) -> None:
    gelu = cli.save(nets.moe("gelu"))
    done = cli("compile", gelu, "-o", "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("warning") == 1
    done = cli("compile", gelu, "-o", "out", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dump_goes_to_stdout(cli: Cli, dense: Path) -> None:
    done = cli("compile", dense, "-o", "out", "--dump", "fuse")
    assert done.returncode == 0
    assert "MatMul" in done.stdout
    assert done.stderr == ""


def test_json(cli: Cli, tasks: Path) -> None:
    ops = json.loads(cli.fine("ops", "--json"))
    assert {"op", "domain", "since", "until", "types", "doc"} == set(ops[0])
    assert {"MatMul", "MoE"} <= {o["op"] for o in ops}
    about = json.loads(cli.fine("inspect", tasks, "--json"))
    assert [t["name"] for t in about["tasks"]] == ["left", "right"]
    cli.fine("compile", tasks, "-o", "out")
    report = json.loads((cli.place / "out" / "report.json").read_text())
    assert [t["task"] for t in report["tasks"]] == ["left", "right"]


def test_warnings_are_not_in_the_json(cli: Cli) -> None:
    done = cli("inspect", cli.save(nets.moe("gelu")), "--json")
    assert json.loads(done.stdout)["moe"][0]["experts"] == nets.MOE["experts"]
    assert "warning" in done.stderr


def test_no_terminal_codes_from_names(cli: Cli) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], name="\x1b[31mred\x07", axis=7)
    bad = cli.save(nets.model([node], [nets.value("x", (2, 2))], [nets.value("y", (2, 2))]))
    message = cli.fails(1, "inspect", bad)
    assert "red" in message
    assert "\x1b" not in message
    assert "\x07" not in message


# ---- pipes and closed files ----


def shell(cli: Cli, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("moecc", cli.program)],
        capture_output=True,
        text=True,
        env=cli.environment,
        cwd=cli.place,
        timeout=120,
        check=False,
    )


def test_closed_standard_files(cli: Cli, dense: Path) -> None:
    assert shell(cli, f"moecc compile {dense} -o out <&- >&- 2>&-").returncode == 0
    assert shell(cli, f"moecc bench {dense} --engine tcc --runs 1 <&-").returncode == 0
    assert shell(cli, "moecc ops 2>&-").returncode == 0
    done = shell(cli, "moecc ops >&-")
    assert done.returncode == 3
    assert "cannot write the results" in done.stderr
    for path in (cli.place / "out").iterdir():
        assert b"moecc: " not in path.read_bytes(), path  # no message went into a file


def test_full_and_broken_stdout(cli: Cli) -> None:
    done = shell(cli, "moecc ops --json >/dev/full")
    assert (done.returncode, "No space left" in done.stderr) == (3, True)
    done = shell(cli, "moecc ops --json | true; echo ${PIPESTATUS[0]}")
    assert done.stdout.strip() in ("0", "3")  # a status, not a signal


def test_reading_a_part_is_enough(cli: Cli) -> None:
    assert shell(cli, "moecc ops | head -1").stdout.startswith("operator")


# ---- progress ----


@pytest.fixture
def slow_cc(cli: Cli) -> Path:
    """A compiler that takes its time, and makes a program that does nothing."""
    path = cli.place / "slow-cc"
    path.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo slow $$\nsleep 1.5\n'
        'while [ "$1" != -o ]; do shift; done\nprintf "#!/bin/sh\\n" >"$2"\nchmod +x "$2"\n'
    )
    path.chmod(0o755)
    return path


def on_terminal(cli: Cli, *arguments: object, **variables: str) -> tuple[int, str]:
    """Runs with stderr on a terminal; returns the status and what is seen there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [cli.program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env=cli.environment | {"TERM": "xterm"} | variables,
        cwd=cli.place,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not block:
            break
        seen += block
    os.close(master)
    return process.wait(), seen.decode()


def test_progress_on_a_terminal(cli: Cli, dense: Path, slow_cc: Path) -> None:
    command = ["bench", dense, "--runs", "1"]
    status, seen = on_terminal(cli, *command, CC=str(slow_cc), NO_COLOR="")
    assert status == 0
    assert "compiling the C" in seen
    assert "\x1b[2m" in seen
    assert seen.endswith("\r\x1b[K"), "the line is erased"
    status, seen = on_terminal(cli, *command, CC=str(slow_cc), NO_COLOR="1")
    assert "compiling the C" in seen
    assert "\x1b[2m" not in seen


def test_no_progress_where_it_is_not_wanted(cli: Cli, dense: Path, slow_cc: Path) -> None:
    command = ["bench", dense, "--runs", "1"]
    assert on_terminal(cli, *command, "--quiet", CC=str(slow_cc)) == (0, "")
    assert on_terminal(cli, *command, CC=str(slow_cc), TERM="dumb") == (0, "")
    assert on_terminal(cli, "ops") == (0, "")  # nothing for what is over at once
    assert cli(*command, CC=str(slow_cc)).stderr == ""


def test_verbose(cli: Cli, dense: Path) -> None:
    lines = cli("compile", dense, "-o", "out", "--verbose").stderr.splitlines()
    assert lines
    assert all(re.fullmatch(r"moecc: [a-zA-Z ]+: [0-9.]+ ms", line) for line in lines)
    assert any("pass fuse" in line for line in lines)


# ---- interrupts ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_leaves_nothing(cli: Cli, dense: Path, slow_cc: Path, number: int) -> None:
    process = subprocess.Popen(
        [cli.program, "run", dense, "--input", f"x={save_x(cli)}", "-o", "results"],
        stderr=subprocess.PIPE,
        text=True,
        env=cli.environment | {"CC": str(slow_cc)},
        cwd=cli.place,
    )
    while not list(cli.temporary.glob("moecc-*/out")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "interrupted" in message
    assert time.monotonic() - start < 1.5, "it waited for the compiler"
    assert not (cli.place / "results").exists()


def save_x(cli: Cli) -> Path:
    path = cli.place / "x.npy"
    np.save(path, nets.X)
    return path


# ---- models ----


def test_external_data(cli: Cli) -> None:
    folder = cli.place / "model"
    folder.mkdir()
    onnx.save(nets.dense(), folder / "dense.onnx", save_as_external_data=True, location="dense.bin", size_threshold=0)
    assert (folder / "dense.bin").stat().st_size >= 8 * 16 * 4
    cli.fine("run", folder / "dense.onnx", "--input", f"x={save_x(cli)}", "-o", "results", "--engine", "tcc")
    assert np.allclose(np.load(cli.place / "results" / "y.npy"), nets.dense_result(nets.X), atol=1e-6)
    (folder / "dense.bin").unlink()
    assert "dense.bin" in cli.fails(1, "compile", folder / "dense.onnx", "-o", "out")


def test_strict_weights(cli: Cli) -> None:
    weights = nets.noise(1, 8)
    weights[3] = np.nan
    node = helper.make_node("Add", ["x", "w"], ["y"])
    io = [nets.value("x", (2, 8))], [nets.value("y", (2, 8))]
    bad = cli.save(nets.model([node], *io, [nets.constant("w", weights)]))
    done = cli("compile", bad, "-o", "out")
    assert done.returncode == 0
    assert "NaN" in done.stderr
    assert "NaN" in cli.fails(1, "compile", bad, "-o", "strict", "--strict")
    mask = cli.save(nets.model([node], *io, [nets.constant("w", np.array([0, -np.inf] * 4, np.float32))]), "mask")
    done = cli("compile", mask, "-o", "mask", "--strict")
    assert (done.returncode, done.stderr) == (0, ""), "a mask is no fault"


# ---- GELU ----


def forms(cli: Cli, path: Path, *options: str) -> tuple[list[str], str]:
    """The forms of a network's GELUs after the passes, and the messages."""
    done = cli("compile", path, "-o", "out", "--dump", "form", *options)
    assert done.returncode == 0, done.stderr
    found = re.findall(r'approximate: string = "(\w+)"|activation: string = "(\w+)"', done.stdout)
    return [a or b for a, b in found], done.stderr


def test_gelu(cli: Cli) -> None:
    chain = [
        helper.make_node("Gelu", ["x"], ["a"], approximate="tanh"),
        helper.make_node("Gelu", ["a"], ["b"], approximate="none"),
        helper.make_node("BiasGelu", ["b", "bias"], ["c"], domain="com.microsoft"),
        helper.make_node("FastGelu", ["c"], ["y"], domain="com.microsoft"),
    ]
    io = [nets.value("x", (2, 8))], [nets.value("y", (2, 8))]
    path = cli.save(nets.model(chain, *io, [nets.constant("bias", nets.noise(1, 8))]))
    assert forms(cli, path, "--gelu", "erf")[0] == ["none"] * 4
    assert forms(cli, path, "--gelu", "tanh")[0] == ["tanh"] * 4
    assert forms(cli, path)[0][:2] == ["tanh", "none"]
    layer = cli.save(nets.moe("gelu"), "moe")
    assert forms(cli, layer)[0] == ["gelu"]
    assert "warning" in forms(cli, layer, "--gelu", "model")[1]
    assert forms(cli, layer, "--gelu", "erf") == (["gelu"], "")
    assert forms(cli, layer, "--gelu", "tanh") == (["gelu_tanh"], "")
