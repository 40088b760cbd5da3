"""The best schedule of two buffers, the figures that are formed from it, and the program that measures, on a small network."""

from __future__ import annotations

import itertools
import random
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from bench.contenders import Settings, run
from bench.process import ContenderError, Process
from bench.report import BEGIN, END
from bench.results import Spread, write
from bench.streaming import build, command, measure, report, results, simulate, storage
from bench.streaming.networks import NETWORKS, Network
from bench.streaming.simulate import Call, Span, Stall, Step, Take

ROOT = Path(__file__).resolve().parent.parent.parent


def steps(*pairs: tuple[float, float]) -> list[Step]:
    return [Step(f"u{n}", 0, False, load, compute, take=n) for n, (load, compute) in enumerate(pairs)]


# ---- the best schedule ----


def test_computing_hides_short_loads() -> None:
    assert simulate.ideal(0, steps((1, 4), (1, 4), (1, 4))) == 1 + 4 + 4 + 4


def test_loads_follow_each_other_when_they_are_longer() -> None:
    assert simulate.ideal(0, steps((5, 1), (5, 1), (5, 1))) == 5 + 5 + 5 + 1


def test_a_load_waits_for_its_buffer() -> None:
    """With three buffers the long load would begin at 2."""
    assert simulate.schedule(0, steps((1, 10), (1, 1), (5, 1))) == [11, 12, 17]


def test_nothing_is_loaded_for_a_slot_that_is_still_there() -> None:
    assert simulate.ideal(2, steps((0, 3), (0, 4))) == 9
    assert simulate.ideal(0, steps((2, 3), (0, 1), (2, 1))) == 2 + 3 + 2 + 1


def test_the_head_hides_the_first_load() -> None:
    assert simulate.ideal(3, steps((2, 1))) == 4
    assert simulate.ideal(3, steps((5, 1))) == 6


def test_checksums_are_computed() -> None:
    slow = [Step("u", n, True, 1, 2, check=1) for n in range(3)]
    assert simulate.ideal(0, slow) == 1 + 3 * 3


def test_an_expert_that_is_not_known_yet_is_not_loaded() -> None:
    router, expert = steps((1, 4), (2, 3))
    late = [router, Step("e", 5, True, 2, 3, release=0.75)]
    assert simulate.ideal(0, [router, expert]) == 1 + 4 + 3
    assert simulate.ideal(0, late) == 1 + 4 + 3
    assert simulate.ideal(0, late, causal=True) == 1 + 3 + 2 + 3
    in_vain = [router, Step("e", 5, True, 2, 3, asked=False)]
    assert simulate.ideal(0, in_vain, causal=True) == 1 + 4 + 2 + 3


def test_slow_machines_get_fewer_rounds() -> None:
    effort = measure.Effort(10, 3, 5)
    assert [effort.goes_on(n, t) for n, t in ((1, 999), (2, 30), (2, 50), (3, 9), (3, 11), (5, 1))] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]


def by_the_clock(head: int, units: list[tuple[int, int]]) -> int:
    """Another way to the same: two buffers, one loader and one computer, a unit of time after the other."""
    buffers: list[tuple[str, int]] = [("free", -1), ("free", -1)]
    loading = computing = None  # (buffer, step, rest)
    next_load = next_step = now = 0
    while True:
        if loading and loading[2] == 0:
            buffers[loading[0]] = ("full", loading[1])
            loading = None
        if computing and computing[2] == 0:
            buffers[computing[0]] = ("free", -1)
            computing = None
        if now >= head and computing is None:
            if next_step == len(units):
                return now
            place = next((b for b in (0, 1) if buffers[b] == ("full", next_step)), None)
            if place is not None:
                computing = (place, next_step, units[next_step][1])
                next_step += 1
        if loading is None and next_load < len(units) and next_load <= next_step:
            place = next((b for b in (0, 1) if buffers[b][0] == "free"), None)
            if place is not None:
                buffers[place] = ("loading", next_load)
                loading = (place, next_load, units[next_load][0])
                next_load += 1
        now += 1
        loading = (*loading[:2], loading[2] - 1) if loading else None
        computing = (*computing[:2], computing[2] - 1) if computing else None


def test_the_schedule_is_that_of_two_buffers() -> None:
    chance = random.Random(1)
    for _ in range(300):
        units = [(chance.randint(1, 6), chance.randint(1, 6)) for _ in range(chance.randint(1, 8))]
        head = chance.randint(0, 4)
        best = simulate.ideal(head, steps(*units))
        assert best == by_the_clock(head, units), (head, units)
        load, compute = (sum(column) for column in zip(*units, strict=True))
        assert max(load, compute + head) <= best <= simulate.serial(head, steps(*units))


# ---- figures ----


def test_both_formulas() -> None:
    assert simulate.hidden(10, 4, 10) == 1
    assert simulate.hidden(10, 4, 12) == 0.5
    assert simulate.hidden(10, 4, 14) == 0
    assert simulate.hidden_of_serial(4, 10, 15, 11) == 1
    one = results.Round(10, 3, 15, 12, 11, 1, 5, 0)
    assert (one.compute, one.hidden, one.hidden_of_serial) == (4, 0.5, 0.75)


# ---- what a call did ----

# Takes a dense unit, a router, the experts 1 and 3, and the dense unit again; the first expert is asked for by the router's
# step, the others while their predecessors are taken. The last is in a buffer still.
EVENTS = """call 100000000 3
take dense 0 1 4096 2000000 12000000 9000000 500000
take router 0 1 8192 20000000 20100000 0 0
take experts 1 4 20480 30000000 34000000 3000000 0
take experts 3 4 28672 40000000 46000000 5000000 0
take experts 3 4 28672 60000000 60000000 0 0
load 4096 1000 1 1 2000000 2000000 11000000 2000000 11000000
load 8192 1000 1 1 11500000 11500000 15000000 20000000 20000000
load 20480 2000 2 0 25100000 25100000 33000000 30000000 33000000
load 28672 2000 3 1 33500000 33500000 45000000 40000000 45000000
load 32768 2000 5 1 60000000 60000000 61000000 0 0
"""


@pytest.fixture
def call() -> Call:
    return simulate.parse(EVENTS.splitlines())


def test_events_are_read(call: Call) -> None:
    assert (call.ms, call.interrupted) == (100, 3)
    first = call.takes[0]
    assert (first.unit, first.index, first.count, first.offset) == ("dense", 0, 1, 4096)
    assert (first.begin, first.end, first.waiting, first.asking) == pytest.approx((2, 12, 9, 0.5))
    assert call.takes[0].rest == pytest.approx(0.5)
    load = call.loads[2]
    assert (load.offset, load.bytes, load.take, load.within) == (20480, 2000, 2, False)
    assert (load.asked, load.begun, load.arrived, load.wait, load.there) == pytest.approx((25.1, 25.1, 33, 30, 33))
    assert load.alone == pytest.approx(7.9)


def test_takes_have_loads(call: Call) -> None:
    assert simulate.loads_of_takes(call) == [0, 1, 2, 3, None]


def test_what_a_call_computes(call: Call) -> None:
    head, parts = simulate.computing(call)
    assert head == 2
    assert parts == pytest.approx([8, 9.9, 6, 14, 40])


def test_steps_of_a_call(call: Call) -> None:
    made = simulate.steps_of(call, [9, 2, 3, 4, 1], [1, 2, 3, 4, 5], [0.1] * 5)
    assert [(s.unit, s.index, s.load, s.compute, s.expert, s.asked) for s in made] == [
        ("dense", 0, 9, 1, False, False),
        ("router", 0, 2, 2, False, True),
        ("experts", 1, 3, 3, True, True),
        ("experts", 3, 4, 9, True, True),
    ]
    assert made[3].check == pytest.approx(0.2)
    assert [s.release for s in made] == pytest.approx([0, 0, 5 / 9.9, 0])
    assert [s.take for s in made] == [0, 1, 2, 3]


def test_layers_of_experts(call: Call) -> None:
    assert simulate.expert_spans(call.takes) == [Span(2, 4)]
    assert simulate.span_time(call, Span(2, 4)) == pytest.approx(100 - 25.1)
    twice = [Take("in", e, 4, 0, 0, 0, 0, 0) for e in (0, 0, 2, 2)] + [Take("in", e, 4, 0, 0, 0, 0, 0) for e in (1, 3)]
    assert simulate.expert_spans(twice) == [Span(0, 3), Span(4, 5)]


def test_stalls_have_reasons(call: Call) -> None:
    found = simulate.stalls(call, [9, 2, 3, 4, 1])
    assert [(s.unit, s.index, s.reason) for s in found] == [
        ("dense", 0, "first"),
        ("experts", 3, "slow"),
        ("experts", 1, "router"),
    ]
    assert found[1].before == pytest.approx(6)
    assert simulate.by_reason(found) == {"first": 9.0, "slow": 5.0, "router": 3.0}
    short = simulate.stalls(call, [9, 2, 3, 11, 1])
    assert [s.reason for s in short] == ["first", "short", "router"]


def test_layers_add_up(call: Call) -> None:
    loads, compute = [9.0, 2, 3, 4, 1], [1.0, 2, 3, 4, 5]
    layers = measure.layers_of(call, loads, compute)
    assert layers is not None
    assert (layers.load, layers.compute) == (7, 12)
    assert layers.overlapped == pytest.approx(74.9)
    made = simulate.steps_of(call, loads, compute, [0.0] * 5)
    assert measure.best_of_layers(call, made) == results.Layers(7, 12, 3 + 4 + 9)
    dense = Call(1, call.takes[:2], call.loads)
    assert measure.layers_of(dense, loads, compute) is None
    assert measure.best_of_layers(dense, made) is None


def test_loads_beside_computing_are_those_that_were_waited_for() -> None:
    calls = ["call 100000000 0", "take a 0 1 0 0 30000000 20000000 0", "take b 0 1 8192 40000000 40001000 0 0"]
    loads = ["load 0 1000 1 1 0 0 30000000 0 30000000", "load 8192 1000 1 1 30000000 30000000 40000000 40000000 40000000"]
    call = simulate.parse([*calls, *loads])
    assert simulate.loads_beside(call, [25.0, 4.0]) == [30.0, 4.0]
    assert simulate.loads_beside(call, [25.0, 14.0]) == [30.0, 10.0]


# ---- results ----


@pytest.fixture
def measured() -> results.Results:
    rounds = [results.Round(10, 3, 15, o, 11, 1, 5, 2, 11.5, results.Layers(5, 4, 6), 5.8) for o in (12.0, 13.0)]
    memory = {"VmHWM": 5_000_000, "RssAnon": 3_000_000}
    stall = Stall("experts", 7, 2.5, 3.0, 0.5, "short")
    case = results.Case(
        "direct",
        "direct",
        False,
        rounds,
        results.Best(11, 11.5, 11, results.Layers(5, 4, 5.5)),
        8_000_000,
        8_100_000,
        4,
        memory,
        [stall],
        {"short": 2.5},
        True,
    )
    failed = results.Case("buffered", "loader", True, failure="no such file")
    batch = results.Batch("net", "A network", 1, 9_000_000, [case, failed], [1e9], memory)
    plans = [results.Plan("a", 16, 1, 100, 50, 20), results.Plan("b", 116, 2, 900, 50, 420)]
    limit = ("net", "A network", 9_000_000, 2_000_000, "RLIMIT_DATA")
    limits = [
        results.Limited(*limit, "direct", [10.0], 8_000_000, 0, [1e9], 4.0, 9, True),
        results.Limited(*limit, "resident", failure="it ended"),
    ]
    near = Spread(0.9, 1.0, 1.1)
    switches = [results.Switch("net", "A network", "direct", near, near)]
    modes = [results.Mode("net", "A network", "mapped", 1.0, [2.0], near)]
    return results.Results({"processor": "P"}, [batch], plans, limits, switches, modes)


def test_results_are_kept(measured: results.Results, tmp_path: Path) -> None:
    write(measured, tmp_path / "streaming.json")
    assert results.read(tmp_path / "streaming.json") == measured


def test_tables(measured: results.Results) -> None:
    shown = report.text(measured)
    row = next(line for line in shown.splitlines() if line.startswith("  direct "))
    assert row.split()[:9] == ["direct", "10.0", "3.00", "1.00", "15.0", "12.5", "11.0", "11.0", "88"]
    assert "38 (31–44) %" in row
    assert "92 (90–94) %" in row
    assert "buffered: not measured: no such file" in shown
    assert "experts[7]: 2.50 ms, short (load 3.00, computed meanwhile 0.50)" in shown
    assert "Per expert, from 16 to 116: 0 bytes of buffers, 4.00 of queues, 8.00 of arena in all." in shown
    assert measured.limited[0].share == pytest.approx(0.8)
    assert "DIFFER" not in shown


def test_a_different_answer_is_shown(measured: results.Results) -> None:
    measured.batches[0].cases[0].same = measured.limited[0].same = False
    assert "DIFFERS" in report.text(measured)
    assert report.limited_cells(measured.limited[0])[-1] == "DIFFERENT"


def test_the_document_is_rewritten(measured: results.Results, tmp_path: Path) -> None:
    page = tmp_path / "streaming.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    report.rewrite(page, measured)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    heads = [line for line in text.splitlines() if line.startswith("| network | source | threads | L |")]
    assert len(heads) == 2
    assert "| A network | direct | 1 | 10.0 | 3.00 | 15.0 | 12.5 |" in text


# ---- memory and storage ----


def test_storage_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    assert storage.storage_speed(tmp_path / "file") > 1e6


@pytest.mark.parametrize("groups", [True, False])
def test_memory_is_limited(groups: bool, tmp_path: Path) -> None:
    """One program writes to 8 MB, the other to 200 MB."""
    code = (
        "static char m[SIZE << 20]; int main(void) { for (long i = 0; i < sizeof m; i += 4096) ((volatile char *)m)[i] = 1; }"
    )
    with storage.limited(50 << 20, groups) as limit, ExitStack() as stack:
        for size, fits in ((8, True), (200, False)):
            source, program = tmp_path / f"{size}.c", tmp_path / str(size)
            source.write_text(code)
            run(["gcc", f"-DSIZE={size}L", str(source), "-o", str(program)])
            try:
                process = stack.enter_context(Process([str(program)], 1, tmp_path / "log", limit.enter))
                with pytest.raises(ContenderError, match="status 0" if fits else "status -"):
                    process.ask("open", 10)
            except OSError:
                assert not fits  # it cannot even be loaded
    assert limit.kind == "RLIMIT_DATA" or groups


# ---- the program ----


@pytest.fixture(scope="module")
def nano(moecc: Path, tmp_path_factory: pytest.TempPathFactory) -> build.Built:
    """The example, with weights that stream."""
    folder = tmp_path_factory.mktemp("nano")
    shutil.copy(ROOT / "examples/nano/nano.onnx", folder / "model.onnx")
    (folder / "network.json").write_text("{}")
    (folder / "inputs").mkdir()
    chance = np.random.default_rng(0)
    np.save(folder / "inputs/image.npy", chance.standard_normal((1, 3, 128, 256), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFLAGS", "-O1 -Wall -Wextra -Wconversion -Werror")
        options = ["--stream-buffer", "100000", "--task", "depth,edge"]
        return build.build(Settings(moecc, folder, "gcc"), folder, "stream", *options)


def test_a_network_is_measured(nano: build.Built, tmp_path: Path) -> None:
    network = Network("nano", "nano", "nano")
    batch = measure.measure(network, nano, 1, ["loader"], measure.Effort(0, 2, 2), tmp_path)
    assert [(case.name, case.failure) for case in batch.cases] == [("buffered, cold", ""), ("buffered, warm", "")]
    for case in batch.cases:
        assert case.same
        assert len(case.rounds) == 2
        assert case.loads > 20
        assert 0 < case.bytes < nano.pack_bytes
        for one in case.rounds:
            assert min(one.load, one.resident, one.serial, one.overlapped, one.trusted) > 0
            assert one.layers is not None
        assert case.best is not None
        assert 0 < case.best.ideal <= case.best.causal * (1 + 1e-9)
        assert case.best.layers is not None
    found = results.Results(batches=[batch], plans=[measure.plan(network, nano)])
    assert found.plans[0].experts == 8
    assert "nano, 1 thread" in report.text(found)


def test_serial_calls_read_nothing_ahead(nano: build.Built, tmp_path: Path) -> None:
    with ExitStack() as stack:
        player = measure.Player(nano, "loader", 2, tmp_path, stack)
        first = player.answer()
        _, overlapped = player.turn("run", 1e9)
        player.set(serial=True)
        _, serial = player.turn("run", 1e9)
        assert player.answer() == first
    assert [load.offset for load in serial.loads] == [load.offset for load in overlapped.loads]
    for load in serial.loads:
        if load.there > 0:
            assert load.wait <= load.begun <= load.there
    pairs = itertools.pairwise(load for load in serial.loads if load.there > 0)
    assert all(a.there <= b.begun for a, b in pairs)
    own = list(enumerate(simulate.loads_of_takes(overlapped), 1))
    assert sum(place is not None and overlapped.loads[place].take < number for number, place in own) > len(overlapped.loads) / 2
    assert all(load.asked <= load.begun <= load.arrived <= load.there for load in overlapped.loads if load.there > 0)


def test_sources_agree(nano: build.Built, tmp_path: Path) -> None:
    answers = set()
    for source in ("resident", "map", "memory", "file", "loader"):
        with ExitStack() as stack:
            player = measure.Player(nano, source, 1, tmp_path, stack)
            answers.add(player.answer())
            assert player.memory()["VmHWM"] > 100_000
    assert len(answers) == 1


def test_little_memory(nano: build.Built, tmp_path: Path) -> None:
    """The pack has 8 MB, not much more than the program and its outputs; a loader's thread would not fit in either."""
    network = Network("nano", "nano", "nano")
    found = measure.in_little_memory(network, nano, "file", 0, tmp_path, groups=False, part=0.9)
    assert (found.failure, found.kind, found.same) == ("", "RLIMIT_DATA", True)
    assert found.share > 0
    assert measure.in_little_memory(network, nano, "resident", 0, tmp_path, groups=False, part=0.9).failure


def test_tasks_in_turn(nano: build.Built, tmp_path: Path) -> None:
    found = measure.switching(Network("nano", "nano", "nano", tasks=2), nano, "loader", 0, tmp_path)
    assert 0.01 < found.first.median < 100


# ---- the command line ----


def test_names_are_looked_up() -> None:
    assert [n.name for n in command.chosen(command.parse(["--quick"]))] == [n.name for n in NETWORKS if n.quick]
    assert [n.name for n in command.chosen(command.parse(["--networks", "moe64,tiny"]))] == ["tiny", "moe64"]
    with pytest.raises(SystemExit, match="no network abacus"):
        command.chosen(command.parse(["--networks", "abacus"]))
