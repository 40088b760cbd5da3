"""The output folder: whole or not at all, whatever happens (faults 20 to 22), and the same for the same input."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nets
import pytest
from calling import Cli

HERE = Path(__file__).resolve().parent
ROOT = os.geteuid() == 0


def contents(folder: Path) -> dict[str, str]:
    """Every file's hash; an empty dictionary if there is no folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()} if folder.exists() else {}


def beside(folder: Path) -> set[str]:
    return {p.name for p in folder.parent.iterdir()} - {"temporary"}


def files_of(cli: Cli, model: Path, *options: str) -> dict[str, str]:
    cli.fine("compile", model, "-o", "reference", *options)
    found = contents(cli.place / "reference")
    shutil.rmtree(cli.place / "reference")
    return found


@pytest.fixture
def old(cli: Cli, tasks: Path) -> Path:
    """A folder of an earlier version of the network, all names being the same."""
    cli.fine("compile", tasks, "-o", "out", "--target", "generic", "--weights", "embed")
    return cli.place / "out"


# ---- what may be written over ----


def test_compile_over(cli: Cli, tasks: Path, old: Path) -> None:
    before = contents(old)
    wanted = files_of(cli, tasks)
    cli.fine("compile", tasks, "-o", "out")
    assert contents(old) == wanted != before
    assert beside(old) == {"out", "tasks.onnx"}


def test_manifest_lists_all(old: Path) -> None:
    assert set((old / "MANIFEST").read_text().split()) == set(contents(old))


def test_empty_folder_is_taken(cli: Cli, tasks: Path) -> None:
    (cli.place / "out").mkdir()
    cli.fine("compile", tasks, "-o", "out/")
    assert (cli.place / "out" / "MANIFEST").exists()


def test_build_products_are_let_be(cli: Cli, tasks: Path, old: Path) -> None:
    (old / "build" / "deep" / "er").mkdir(parents=True)
    (old / "build" / "deep" / "er" / "x.o").write_text("")
    cli.fine("compile", tasks, "-o", "out")
    assert not (old / "build").exists()


def foreign_file(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def foreign_folder(folder: Path) -> None:
    (folder / "tasks.h").unlink(missing_ok=True)
    (folder / "tasks.h").mkdir()


def foreign_link(folder: Path) -> None:
    (folder / "link").symlink_to("/")


def no_manifest(folder: Path) -> None:
    (folder / "MANIFEST").unlink()


def other_manifest(folder: Path) -> None:
    """As Python's distutils writes it."""
    (folder / "MANIFEST").write_text("".join(f"{p.name}\n" for p in folder.iterdir() if p.name != "moecc_rt.h"))
    (folder / "moecc_rt.h").unlink()


@pytest.mark.parametrize("spoil", [foreign_file, foreign_folder, foreign_link, no_manifest, other_manifest])
def test_strangers_are_not_removed(cli: Cli, tasks: Path, old: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(old)
    before = sorted(p.name for p in old.iterdir())
    message = cli.fails(3, "compile", tasks, "-o", "out")
    assert "not from a run before" in message
    assert sorted(p.name for p in old.iterdir()) == before
    assert beside(old) == {"out", "tasks.onnx"}


def test_a_folder_with_only_build_is_a_strangers(cli: Cli, tasks: Path) -> None:
    (cli.place / "project" / "build").mkdir(parents=True)
    assert "build" in cli.fails(3, "compile", tasks, "-o", "project")


def test_neighbours_are_not_touched(cli: Cli, tasks: Path) -> None:
    for name in ("out.old", "out.building", "out.lock", "out.tmp"):
        (cli.place / name).mkdir()
        (cli.place / name / "mine").write_text("mine")
    cli.fine("compile", tasks, "-o", "out")
    for name in ("out.old", "out.building", "out.lock", "out.tmp"):
        assert (cli.place / name / "mine").read_text() == "mine"


# ---- 20: cannot be written ----


def test_output_is_a_file(cli: Cli, tasks: Path) -> None:
    (cli.place / "out").write_text("mine")
    assert "not a folder" in cli.fails(3, "compile", tasks, "-o", "out")
    assert (cli.place / "out").read_text() == "mine"
    (cli.place / "link").symlink_to("/tmp")
    assert "not a folder" in cli.fails(3, "compile", tasks, "-o", "link")


def test_parent_is_missing(cli: Cli, tasks: Path) -> None:
    assert "no/such" in cli.fails(3, "compile", tasks, "-o", "no/such/out")


@pytest.mark.skipif(not ROOT or not shutil.which("setpriv"), reason="needs root, who becomes nobody")
def test_parent_is_unwritable(cli: Cli, tasks: Path) -> None:
    locked = cli.place / "locked"
    locked.mkdir(mode=0o555)
    tasks.chmod(0o644)
    program = shutil.copy(cli.program, cli.place / "moecc")
    for folder in (cli.place, *list(cli.place.parents)[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    line = [*nobody, program, "compile", tasks, "-o", locked / "out"]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, env=cli.environment, check=False)
    assert done.returncode == 3, done.stderr
    assert "Permission denied" in done.stderr
    assert list(locked.iterdir()) == []


def test_the_model_is_not_read_before(cli: Cli) -> None:
    """Before any work: the folder's fault is found first."""
    (cli.place / "out").write_text("mine")
    (cli.place / "bad.onnx").write_text("no model")
    assert "not a folder" in cli.fails(3, "compile", "bad.onnx", "-o", "out")


def test_held_by_another_run(cli: Cli, tasks: Path, old: Path) -> None:
    before = contents(old)
    with open(cli.place / ".out.moecc-lock", "w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        assert "another run, process 4711" in cli.fails(3, "compile", tasks, "-o", "out")
    assert contents(old) == before
    cli.fine("compile", tasks, "-o", "out")
    assert beside(old) == {"out", "tasks.onnx"}


def test_one_of_several_at_once(cli: Cli, tasks: Path) -> None:
    wanted = files_of(cli, tasks)
    line = [cli.program, "compile", str(tasks), "-o", "out"]
    runs = [subprocess.Popen(line, stderr=subprocess.PIPE, cwd=cli.place, env=cli.environment, text=True) for _ in range(4)]
    ended = [(run.communicate()[1], run.returncode) for run in runs]
    assert {status for _, status in ended} <= {0, 3}
    assert any(status == 0 for _, status in ended)
    assert all("being written by another run" in message for message, status in ended if status)
    assert contents(cli.place / "out") == wanted
    assert beside(cli.place / "out") == {"out", "tasks.onnx"}


# ---- 21: errors of writing ----


@pytest.fixture
def small_disk(cli: Cli) -> Iterator[Path]:
    """A disk of 200 kB."""
    if not ROOT:
        pytest.skip("needs root to mount")
    place = cli.place / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], check=False, capture_output=True).returncode:
        pytest.skip("cannot mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_full_disk(cli: Cli, tasks: Path, small_disk: Path) -> None:
    message = cli.fails(3, "compile", tasks, "-o", small_disk / "out")
    assert "No space left" in message
    assert "free some space" in message
    assert list(small_disk.iterdir()) == []


def test_full_disk_keeps_the_old_one(cli: Cli, tasks: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    out.mkdir()
    (out / "moecc_rt.h").write_text("x" * 1000)
    (out / "MANIFEST").write_text("moecc_rt.h\nMANIFEST\n")
    before = contents(out)
    assert "No space left" in cli.fails(3, "compile", tasks, "-o", out)
    assert contents(out) == before
    assert [p.name for p in small_disk.iterdir()] == ["out"]


def test_mount_point(cli: Cli, tasks: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    assert "mount point" in cli.fails(3, "compile", tasks, "-o", small_disk)
    assert list(small_disk.iterdir()) == []


def test_file_size_limit(cli: Cli, tasks: Path, old: Path) -> None:
    before = contents(old)
    done = subprocess.run(
        [cli.program, "compile", str(tasks), "-o", "out"],
        capture_output=True,
        text=True,
        cwd=cli.place,
        env=cli.environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        check=False,
    )
    assert (done.returncode, "File too large" in done.stderr) == (3, True), done.stderr
    assert contents(old) == before
    assert beside(old) == {"out", "tasks.onnx"}


@pytest.fixture(scope="session")
def failing_io(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("preload") / "failing_io.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "failing_io.c", "-ldl"], check=True)
    return library


def sanitized(cli: Cli) -> bool:
    return b"__asan_init" in Path(cli.program).read_bytes()


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two-renames"])
def test_every_write_fails_once(cli: Cli, tasks: Path, old: Path, failing_io: Path, exchange: bool) -> None:
    """Each call in turn, or one in three: the old folder or the new one, and nothing beside it."""
    if sanitized(cli):
        pytest.skip("the sanitizer must be loaded first")
    count = cli.place / "count"
    before = contents(old)
    wanted = files_of(cli, tasks)
    variables = {"LD_PRELOAD": str(failing_io), "COUNT_TO": str(count)} | ({} if exchange else {"NO_EXCHANGE": "1"})
    cli.fine("compile", tasks, "-o", "other", **variables)
    calls = int(count.read_text())
    assert calls > 50
    failures = 0
    tried = sorted({*range(1, calls + 1, 3), *range(calls - 12, calls + 3)})
    for at in tried:
        done = cli("compile", tasks, "-o", "out", **variables, FAIL_AT=str(at), FAIL_ERRNO="28")
        assert done.returncode in (0, 3), (at, done.stderr)
        now = contents(old)
        assert now == (wanted if done.returncode == 0 else before), at
        assert beside(old) == {"out", "other", "tasks.onnx", "count"}, at
        if done.returncode:
            failures += 1
            assert done.stderr.count("\n") <= 2, done.stderr
        else:
            cli.fine("compile", tasks, "-o", "out", "--target", "generic", "--weights", "embed")
    assert failures > 0.8 * len(tried)


# ---- 22: killed ----


def interrupt(cli: Cli, model: Path, number: int, delay: float) -> int:
    """The status of a run that gets the signal after the delay."""
    process = subprocess.Popen(
        [cli.program, "compile", str(model), "-o", "out"], stderr=subprocess.DEVNULL, cwd=cli.place, env=cli.environment
    )
    time.sleep(delay)
    process.send_signal(number)
    return process.wait()


def duration(cli: Cli, model: Path) -> float:
    start = time.monotonic()
    cli.fine("compile", model, "-o", "timing")
    shutil.rmtree(cli.place / "timing")
    return time.monotonic() - start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_at_any_moment(cli: Cli, tasks: Path, old: Path, number: int) -> None:
    chance = random.Random(number)
    before, wanted = contents(old), files_of(cli, tasks)
    longest = 1.2 * duration(cli, tasks)
    early = 0
    for _ in range(30):
        status = interrupt(cli, tasks, number, chance.uniform(0, longest))
        now = contents(old)
        assert now in (before, wanted), "a mixture"
        early += status != 0
        if number == signal.SIGKILL:
            assert status in (0, -number)
        else:
            assert status in (0, 3, -number)  # -number: before it had begun
            assert beside(old) == {"out", "tasks.onnx"}
        if status == 3:
            assert now == before
        if now == wanted:
            cli.fine("compile", tasks, "-o", "out", "--target", "generic", "--weights", "embed")
        assert contents(old) in (before, wanted)
    assert early, "no run was stopped"
    cli.fine("compile", tasks, "-o", "out")
    assert contents(old) == wanted
    assert beside(old) == {"out", "tasks.onnx"}, "the next run has cleaned up"


def test_recovery_between_two_renames(cli: Cli, tasks: Path, old: Path) -> None:
    """Killed when the old folder had been moved aside: the next run, even one that fails, puts it back."""
    before = contents(old)
    old.rename(cli.place / ".out.moecc-old")
    (cli.place / ".out.moecc-building").mkdir()
    (cli.place / ".out.moecc-building" / "half").write_text("half")
    (cli.place / "bad.onnx").write_text("no model")
    cli.fails(1, "compile", "bad.onnx", "-o", "out")
    assert contents(old) == before
    assert beside(old) == {"out", "tasks.onnx", "bad.onnx"}


def test_leftovers_are_not_followed(cli: Cli, tasks: Path) -> None:
    """Somebody's link where the folder in the making would be."""
    treasure = cli.place / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("gold")
    (cli.place / ".out.moecc-building").symlink_to(treasure)
    (cli.place / ".out.moecc-old").symlink_to(treasure)
    shutil.rmtree(cli.place / "out", ignore_errors=True)
    (cli.place / "out").mkdir()
    cli.fine("compile", tasks, "-o", "out")
    assert (treasure / "gold").read_text() == "gold"


# ---- the same input gives the same bytes ----


def test_deterministic(cli: Cli, tasks: Path) -> None:
    wanted = files_of(cli, tasks)
    elsewhere = cli.place / "else where"
    elsewhere.mkdir()
    copy = Path(shutil.copy(tasks, elsewhere))
    without_aslr = ["setarch", "-R"] if shutil.which("setarch") else []
    for prefix, variables in (
        ([], {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Tokyo"}),
        ([], {"TMPDIR": str(elsewhere), "HOME": "/nonexistent", "NO_COLOR": "1"}),
        (without_aslr, {"MALLOC_PERTURB_": "85"}),
    ):
        line = [*prefix, cli.program, "compile", str(copy), "-o", "out"]
        subprocess.run(line, cwd=elsewhere, env=cli.environment | variables, check=True, capture_output=True)
        assert contents(elsewhere / "out") == wanted, variables


def test_deterministic_with_experts(cli: Cli) -> None:
    path = cli.save(nets.moe())
    assert files_of(cli, path) == files_of(cli, path)
    assert files_of(cli, path, "--weights", "embed") == files_of(cli, path, "--weights", "embed")
