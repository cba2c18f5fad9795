"""dlc.records: what is written is found by every process; damage, full and read-only disks cost a warning and never a wrong result."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dlc
from dlc import f32, records
from dlc.compiler import Plan, record_key
from dsl.errors import RecordError

ROOT = Path(__file__).resolve().parents[2]
M, N, K = dlc.dims("M N K")


@dlc.kernel
def product(x: f32[M, K], w: f32[K, N]):
    return x @ w


def key(n: int = 0) -> records.Key:
    return records.Key("ab" * 32, ((3, 4 + n), ()), ((4, 1), ()), "x86-64", "machine", 2)


def record(n: int = 0, **changes) -> records.Record:
    plain = records.Record(key(n), "product", {"t.tile": (32, 4), "t.vectors": 2}, {"default": (2e-3, 3e-3), "tuned": (1e-3, 1.5e-3)}, 2.0,
                           {"default": 1e-7}, "for i", "cd" * 32, True, True, {"dlc": "0"}, 1.0, 10.0, 7)
    return replace(plain, **changes)


@pytest.fixture(autouse=True)
def fresh(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "_reported", set())
    monkeypatch.setattr(records, "_unsaved", {})
    return cache_dir


def test_a_record_is_found_again_with_its_types() -> None:
    assert records.find(key()) is None
    assert records.save(record())
    found = records.find(key())
    assert found == record() and isinstance(found.decisions["t.tile"], tuple)


@pytest.mark.parametrize("other", [{"program": "cd" * 32}, {"shapes": ((3, 5), ())}, {"strides": ((1, 3), ())}, {"target": "x86-64-avx2"},
                                   {"machine": "another"}, {"threads": 1}])
def test_every_part_of_the_key_counts(other: dict) -> None:
    records.save(record())
    assert records.find(replace(key(), **other)) is None


def test_similar_records_are_of_the_same_program() -> None:
    for r in (record(), record(1), record(2, key=replace(key(2), program="ef" * 32)), record(3, key=replace(key(3), target="sm_90"))):
        records.save(r)
    assert [r.key for r in records.similar(key())] == [key(1)]


@pytest.mark.parametrize("damage", [lambda t: t[:len(t) // 2], lambda t: t.replace("32", "48"), lambda t: "", lambda t: "[1, 2]",
                                    lambda t: '{"dlc record": 1, "sha256": 3}', lambda t: "\x00\xff" + t])
def test_a_damaged_record_is_told_once_and_ignored(damage, recwarn: pytest.WarningsRecorder) -> None:
    records.save(record())
    path = records.directory() / key().file
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match="damaged"):
        assert records.find(key()) is None
    assert records.find(key()) is None and records.all_records() == []
    assert records.save(record()) and records.find(key()) == record()


def test_a_record_of_the_wrong_shape_with_a_right_checksum_is_damaged_too() -> None:
    body = record().to_json()
    del body["decisions"]
    path = records.directory() / key().file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dlc record": 1, "sha256": records._checksum(body), "record": body}))
    with pytest.warns(UserWarning, match="not a tuning record"):
        assert records.find(key()) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_keeps_the_record_in_the_process(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(UserWarning, match=os.strerror(code)):
        assert not records.save(record())
    assert records.find(key()) == record()
    assert list(records.directory().iterdir()) == []
    assert records.remove(key()) and records.find(key()) is None


def test_export_and_import_go_through_one_file(tmp_path: Path) -> None:
    for n in range(3):
        records.save(record(n))
    assert records.export(tmp_path / "all.jsonl") == 3
    assert records.clear() == 3 and records.all_records() == []
    assert records.import_(tmp_path / "all.jsonl") == 3
    assert {r.key for r in records.all_records()} == {key(n) for n in range(3)}
    assert records.remove(key()) and not records.remove(key())


def test_a_damaged_export_is_refused_whole(tmp_path: Path) -> None:
    for n in range(2):
        records.save(record(n))
    path = tmp_path / "all.jsonl"
    records.export(path)
    path.write_text(path.read_text().replace("for i", "for j", 1))
    records.clear()
    with pytest.raises(RecordError, match="line 1"):
        records.import_(path)
    assert records.all_records() == []
    with pytest.raises(RecordError, match="cannot read"):
        records.import_(tmp_path / "missing")


def test_threads_that_write_one_record_leave_a_whole_one() -> None:
    writers = [threading.Thread(target=lambda n=n: [records.save(record(candidates=n)) for _ in range(20)]) for n in range(4)]
    for w in writers:
        w.start()
    for _ in range(50):
        found = records.find(key())
        assert found is None or found.candidates in range(4)
    for w in writers:
        w.join()
    assert len(list(records.directory().iterdir())) == 1


# -- what the compiler does with them ------------------------------------------------------------------------------
def tuned(x: torch.Tensor, w: torch.Tensor) -> records.Record:
    """A record with the last option of every choice."""
    request = product.request([x.shape, w.shape], [x.stride(), w.stride()])
    plan = Plan(replace(request, decisions={}))
    assert plan.nest.stages
    decisions = {c.name: c.options[-1] for c in plan.decisions.made.values()}
    return record(key=record_key(request), decisions=decisions)


def test_the_compiler_finds_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torch.randn(64, 32), torch.randn(32, 96)
    r = tuned(x, w)
    records.save(r)
    plan = product.plan(x, w)
    assert plan.nest.stages and {n: plan.decisions.made[n].value for n in r.decisions} == r.decisions
    monkeypatch.setenv("DLC_RECORDS", "off")
    assert product.plan(x, w).record is None
    monkeypatch.delenv("DLC_RECORDS")
    assert product.plan(x[:, :16], w[:16]).record is None


def test_another_process_finds_the_record(tmp_path: Path) -> None:
    x, w = torch.randn(64, 32), torch.randn(32, 96)
    records.save(tuned(x, w))
    (tmp_path / "elsewhere.py").write_text(
        "import torch, dlc\nA, B, C = dlc.dims('A B C')\n\n\n@dlc.kernel\ndef other_name(left: dlc.f32[A, C], right: dlc.f32[C, B]):\n"
        "    return left @ right\n\n\ntorch.set_num_threads(THREADS)\n"
        "p = other_name.plan(torch.randn(64, 32), torch.randn(32, 96))\nprint(p.record.decisions)\n"
        .replace("THREADS", str(torch.get_num_threads())))
    out = subprocess.run([sys.executable, str(tmp_path / "elsewhere.py")], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert out.stdout.strip() == repr(tuned(x, w).decisions)


def test_a_recorded_schedule_that_does_not_compile_gives_way_to_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torch.randn(64, 32), torch.randn(32, 96)
    records.save(tuned(x, w))
    original = Plan.module.func

    def module(plan):
        if plan.record is not None:
            raise dlc.errors.ScheduleError("no such loop")
        return original(plan)
    monkeypatch.setattr(Plan, "module", property(module))
    with pytest.warns(UserWarning, match="no such loop"):
        launcher = product.plan(x, w).launcher()
    torch.testing.assert_close(launcher([x, w])[0], x @ w)


def test_choices_that_are_none_any_more_are_told_and_the_rest_is_used() -> None:
    x, w = torch.randn(40, 24), torch.randn(24, 56)
    stage = product.plan(x, w).nest.stages[-1].name
    found = record_key(product.plan(x, w).request)
    chosen = {c.name: c.value for c in product.plan(x, w).decisions.made.values()}
    whole = product.plan(x, w)
    assert whole.nest and whole.decisions.passed_over == []
    tile = next(o for c in whole.decisions.made.values() if c.name.endswith("register_tile") for o in c.options if o != c.value)
    records.save(record(0, key=found, decisions={**chosen, f"{stage}.register_tile": tile, f"{stage}.form": "gone", "old.choice": 3}))
    plan = product.plan(x, w)
    with pytest.warns(UserWarning, match=r"choices that are none any more \(.*form, old\.choice\)"):
        assert plan.nest
    assert plan.decisions.made[f"{stage}.register_tile"].value == tile
    with pytest.warns(UserWarning, match="none any more"):
        torch.testing.assert_close(product(x, w), x @ w, rtol=1e-4, atol=1e-4)
