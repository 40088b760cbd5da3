"""Medians, paired ratios, shares, and the file that keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import results
from bench.results import Batch, Results, Row, Spread, Switch, ratios, spread


def row(name: str, ms: list[float], error: float | None = 1e-6, **more: object) -> Row:
    return Row(name, name.startswith("moecc"), "plain", error=error, ms=ms, **more)  # type: ignore[arg-type]


def test_spread_is_median_and_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(2.0, 3.0, 4.0)
    assert spread([1.0, 2.0]) == Spread(1.25, 1.5, 1.75)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_ratios_are_paired_by_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    a, b = row("moecc", [1.0, 2.0, 1.0]), row("peer", [2.0, 4.0, 2.0])
    assert ratios(a, b) == Spread(0.5, 0.5, 0.5)
    slow = row("slow", [8.0, 32.0])  # it left after two rounds
    assert ratios(a, slow) == Spread(0.078125, 0.09375, 0.109375)


def test_the_fastest_peer_is_exact_measured_and_not_ours() -> None:
    batch = Batch("n", "N", 1, 1e9)
    batch.rows = [
        row("moecc", [1.0]),
        row("moecc token-major", [2.0]),
        row("wrong", [3.0], error=2e-3),
        row("no number", [3.0], error=None),
        Row("absent", failure="it does not load"),
        row("slower", [9.0, 9.0]),
        row("faster", [8.0, 7.0], error=1e-3),
    ]
    peer = batch.fastest_peer()
    assert peer is not None
    assert peer.contender == "faster"
    assert batch.row("absent") is None
    batch.rows = batch.rows[:5]
    assert batch.fastest_peer() is None


def test_a_failure_after_some_rounds_counts_as_not_measured() -> None:
    broken = row("peer", [1.0, 1.0], failure="it ended with status -9")
    assert not broken.measured


def test_shares_pair_each_round_with_its_peak() -> None:
    batch = Batch("n", "N", 1, flops=2e9, peak=[100e9, 50e9], read=[10e9, 10e9])
    ours = row("moecc", [20.0, 40.0], facts={"flops": 1e9, "weight_bytes": 150e6})
    assert batch.share(ours, batch.flops).median == pytest.approx(1.0)
    assert batch.own_share(ours).median == pytest.approx(0.5)
    assert batch.bound_share(ours) == spread([0.75, 0.5])  # 15 ms to read, 10 and 20 to compute
    assert batch.own_share(row("peer", [20.0, 40.0])).median == pytest.approx(1.0)


def test_json_gives_back_what_was_written(tmp_path: Path) -> None:
    one = Spread(0.9, 1.0, 1.1)
    rows = [row("moecc", [1.0, 2.0], facts={"tasks": ["a", "b"]}), Row("peer", failure="no form")]
    batch = Batch("n", "N", 2, 1e9, rows, [1.0], [2.0], Switch(one, one, 3.0, 4.0))
    written = Results({"cores": 2}, {"peer": "1.0"}, [batch, Batch("m", "M", 1, 1.0)])
    results.write(written, tmp_path / "r.json")
    found = results.read(tmp_path / "r.json")
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    assert found.batches[0].switch == batch.switch
    assert found.batches[0].rows[0] == rows[0]
    assert found.batches[1].switch is None
    assert found.batches[0].rows[1].failure == "no form"
    assert (found.networks(), found.find("n", 2) is found.batches[0], found.find("n", 1)) == (["n", "m"], True, None)
