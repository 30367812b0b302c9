import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from evaluated import table

from common.files import (
    RESULTS,
    BadFileError,
    Failures,
    locked,
    replacing,
    root_cause,
    write_bytes,
    write_csv,
    write_text,
)


def test_what_is_written_can_be_read_and_nothing_else_is_left(tmp_path):
    write_bytes(tmp_path / "new" / "er" / "a.bin", b"\x00\xff")
    assert [path.read_bytes() for path in (tmp_path / "new" / "er").iterdir()] == [b"\x00\xff"]


def test_text_is_in_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "Bauch ✓\n")
    assert (tmp_path / "a.txt").read_bytes() == "Bauch ✓\n".encode()


def test_what_is_written_is_on_the_disk_before_it_has_the_name_of_the_file(tmp_path, monkeypatch):
    path, synchronise, seen = tmp_path / "a.txt", os.fsync, []

    def fsync(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.exists()))
        synchronise(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "four")
    assert seen == [(4, False)]


def test_until_all_is_written_the_old_file_is_there(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def write_half(path):
    """Let the disk be full after half of a file."""
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("No space left on device")


@pytest.mark.parametrize("before", ["", "old"])
def test_where_writing_fails_nothing_has_changed(tmp_path, before):
    if before:
        write_text(tmp_path / "a.txt", before)
    with pytest.raises(OSError, match="No space left"):
        write_half(tmp_path / "a.txt")
    assert [path.read_text() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_two_runs_that_write_one_file_leave_it_whole(tmp_path):
    with replacing(tmp_path / "a.txt") as ours, replacing(tmp_path / "a.txt") as theirs:
        ours.write_text("ours")
        theirs.write_text("theirs, and longer")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["ours"]


def test_what_killed_runs_left_is_removed_by_a_later_one(tmp_path, monkeypatch):
    monkeypatch.setattr("common.files.LEFT_AFTER_S", -1)
    for name in ("a.txt", "b.txt"):
        (tmp_path / f".tmp.12345678.{name}").write_text("half of it")
    write_text(tmp_path / "a.txt", "whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_what_another_run_is_writing_is_left_alone(tmp_path):
    (tmp_path / ".tmp.12345678.a.txt").write_text("half of it")
    write_text(tmp_path / "a.txt", "whole")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"whole", "half of it"}


def test_the_temporary_name_is_hidden_and_ends_as_that_of_the_file(tmp_path):
    with replacing(tmp_path / "a.nii.gz") as temporary:
        temporary.write_bytes(b"")
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_takes_the_place_of_a_link_to_the_same_file(tmp_path, link):
    write_text(tmp_path / "source.txt", "image")
    for _ in range(2):
        with replacing(tmp_path / "links" / "a.txt") as temporary:
            link(tmp_path / "source.txt", temporary)
    assert [path.read_text() for path in (tmp_path / "links").iterdir()] == ["image"]


def lock_twice(path):
    with locked(path, "in use"), locked(path, "in use by another"):
        raise AssertionError


def test_a_lock_is_had_once_at_a_time_and_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="in use by another"):
        lock_twice(tmp_path / "new" / ".lock")
    for _ in range(2):
        with locked(tmp_path / "new" / ".lock", "in use"):
            assert (tmp_path / "new" / ".lock").is_file()
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("another_has_come", [False, True])
def test_a_lock_that_was_just_given_back_is_not_had_by_two(tmp_path, monkeypatch, another_has_come):
    def flock(*lock):
        (tmp_path / ".lock").unlink()
        if another_has_come:
            (tmp_path / ".lock").touch()

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(RuntimeError, match="in use"), locked(tmp_path / ".lock", "in use"):
        raise AssertionError


HOLDS = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from common.files import locked
with locked(sys.argv[2], "in use"):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_killed_process_does_not_hold_a_lock_though_processes_that_it_began_live_on(tmp_path):
    path, root = tmp_path / ".lock", Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-c", HOLDS, root, path], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(RuntimeError, match="in use"), locked(path, "in use"):
            raise AssertionError
        process.kill()
        process.wait()
        with locked(path, "in use"):
            assert path.is_file()
    finally:
        os.kill(child, signal.SIGKILL)


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*lock):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / ".lock", "in use"):
        assert "cannot be locked: [Errno" in caplog.text
    monkeypatch.setattr("common.files.fcntl", None)
    with locked(tmp_path / ".lock", "in use"):
        assert not list(tmp_path.iterdir())


def test_rows_are_read_back_as_they_were_written(tmp_path):
    rows = [{"case": 'Müller, "A"', "value": 0.1}, {"case": "two\nlines", "value": float("nan")}]
    write_csv(tmp_path / "new" / "table.csv", rows)
    assert table(tmp_path / "new" / "table.csv") == [{key: str(value) for key, value in row.items()} for row in rows]


def test_a_table_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, [{"case": "old"}])
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        write_csv(path, [{"case": "new"}, {"case": "new", "more": 1}])
    assert table(path) == [{"case": "old"}]


def test_a_run_without_failures_ends_well():
    Failures().exit_if_any()


def test_a_run_ends_with_the_number_and_the_reasons_of_its_failures():
    failures = Failures()
    failures.add("a", "cut off")
    failures.add("b", "empty")
    with pytest.raises(SystemExit) as ended:
        failures.exit_if_any()
    assert ended.value.code == "2 of the cases could not be done:\n  a: cut off\n  b: empty"


def test_a_failure_is_logged_when_it_happens(caplog):
    Failures().add("a", "cut off")
    assert "a is left out: cut off" in caplog.text


def test_a_text_that_would_be_a_formula_is_escaped_and_numbers_are_numbers(tmp_path):
    texts = ["=1+1", "+1", "-1", "@a", "a", "a-1"]
    write_csv(tmp_path / "a.csv", [{"case": text, "value": -1.5, "count": -i} for i, text in enumerate(texts)])
    read = pandas.read_csv(tmp_path / "a.csv")
    assert read["case"].tolist() == ["'=1+1", "'+1", "'-1", "'@a", "a", "a-1"]
    assert (read["value"].tolist(), read["count"].tolist()) == ([-1.5] * 6, [0, -1, -2, -3, -4, -5])


def test_a_case_or_a_reason_of_several_lines_is_one_line_in_log_and_summary(caplog):
    failures = Failures()
    failures.add("a\nb", "it\x1b[2J is\nbad")
    assert failures.reasons == {r"a\nb": r"it\x1b[2J is\nbad"}
    assert caplog.messages == [r"a\nb is left out: it\x1b[2J is\nbad"]


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_the_root_of_an_error_is_what_monai_wrapped():
    bad = raised(BadFileError("a.nii: expected x, got y."), OSError("5"))
    wrapped = raised(RuntimeError("Failed to instantiate component"), raised(RuntimeError("applying transform"), bad))
    assert root_cause(wrapped) is bad
    assert root_cause(raised(RuntimeError("out of memory"))).args == ("out of memory",)


def test_a_missing_package_is_no_matter_of_one_case():
    with pytest.raises(ImportError), Failures().recording("a", "reading it"):
        raise ImportError("pip install it")


def results_of(case, folder, *more):
    """Write what an earlier run said of a case, and further files."""
    folder.mkdir(parents=True)
    for name in (*(f"{case}_{ending}" for ending in RESULTS), *more):
        (folder / name).write_text("of an earlier run")


def test_a_refused_case_does_not_keep_what_an_earlier_run_said_of_it(tmp_path):
    for case in ("a", "b"):
        results_of(case, tmp_path / case)
    Failures(tmp_path).add("a", "cut off")
    assert not (tmp_path / "a").exists()
    assert len(list((tmp_path / "b").iterdir())) == len(RESULTS)


def test_of_a_refused_case_nothing_but_results_is_removed(tmp_path):
    others = ["a.nii.gz", "a_flair.nii.gz", "a_label.nii.gz", "a_organ.nii.gz", "b_mask.nii.gz", "notes.txt"]
    results_of("a", tmp_path / "a", *others)
    Failures(tmp_path).add("a", "cut off")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(others)


@pytest.mark.parametrize("case", ["linked", "..", "../elsewhere", "sub/elsewhere"])
def test_what_lies_outside_the_folder_of_a_refused_case_is_left_alone(tmp_path, case):
    name = "linked" if case == "linked" else "elsewhere"
    results_of(name, tmp_path / "elsewhere")
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for link in (out / "linked", out / "sub" / "elsewhere"):
        link.symlink_to(tmp_path / "elsewhere")
    Failures(out).add(case, "cut off")
    assert len(list((tmp_path / "elsewhere").iterdir())) == len(RESULTS)


def test_a_run_without_an_output_dir_removes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results_of("a", tmp_path / "a")
    Failures().add("a", "cut off")
    assert len(list((tmp_path / "a").iterdir())) == len(RESULTS)
