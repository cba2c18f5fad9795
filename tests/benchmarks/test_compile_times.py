"""The benchmark of compile times: every kernel is compiled and loaded, and each figure has its spread."""

from benchmarks import compile_times


def test_every_kernel_is_compiled_and_loaded(monkeypatch):
    few = {name: compile_times.KERNELS[name] for name in ("row sums", "softmax")}
    monkeypatch.setattr(compile_times, "KERNELS", few)
    found = compile_times.run(quick=True)
    for group in ("compile", "load"):
        assert [c["name"] for c in found[group]] == list(few) and all(0 < c["least"] <= c["median"] for c in found[group])
    assert sum(c["least"] for c in found["load"]) < sum(c["least"] for c in found["compile"])
    assert found["import"][0]["least"] > 0
