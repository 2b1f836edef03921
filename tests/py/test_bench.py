"""`gapless bench`: cases, rows, what is measured, and peers that are not what they should be."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest

import gapless as gl
from gapless import _core, cli
from gapless.bench import BenchError, bench, cases, command, machine, per_layer, per_op, rows, sides, worker

BENCH = Path(sides.__file__).parent
TINY = {"rounds": 1, "seconds": 0.05}

# ---- cases ----


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("lenet@28", ("lenet", 28, 128, 1.0)),
        ("resnet18@32", ("resnet18", 32, 128, 1.0)),
        ("resnet18@224", ("resnet18", 224, 16, 1.0)),
        ("resnet50@224:8", ("resnet50", 224, 8, 1.0)),
        ("mobilenet_v2@224", ("mobilenet_v2", 224, 16, 1.0)),
        ("mobilenet_v2x0.25@224", ("mobilenet_v2", 224, 32, 0.25)),
        ("mobilenet_v3_small@224", ("mobilenet_v3_small", 224, 32, 1.0)),
        ("mobilenet_v3_largex2@96:3", ("mobilenet_v3_large", 96, 3, 2.0)),
    ],
)
def test_case_reads_and_writes_its_spelling(text, case):
    assert tuple(cases.parse(text)) == case
    assert cases.parse(text).name == text.partition(":")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet18", "NET@SIZE"),
        ("resnet18@4", "SIZE >= 8"),
        ("resnet18@32:0", "batch must be >= 1"),
        ("vgg@32", "there are: lenet"),
        ("resnet18x2@32", "a width is for mobilenets"),
        ("mobilenet_v2x0@32", "a width is for mobilenets"),
        ("mobilenet_v2@32@", "NET@SIZE"),
        ("mobilenet_v2@999999999999", "NET@SIZE"),
        ("", "NET@SIZE"),
    ],
)
def test_case_says_what_is_wrong(text, said):
    with pytest.raises(ValueError, match=said):
        cases.parse(text)


def test_all_cases_are_those_that_speed_is_judged_by():
    judged = {(c.name, c.batch) for c in cases.expand(["all"])}
    assert judged == {
        ("resnet18@32", 128),
        ("mobilenet_v2@224", 16),
        ("mobilenet_v2x0.25@224", 32),
        ("mobilenet_v3_small@224", 32),
        ("resnet50@224", 16),
        ("resnet18@224", 16),
        ("lenet@28", 128),
    }
    assert all(cases.parse(c.name).batch == c.batch for c in cases.expand(["all"]))
    others = cases.expand(["others"])
    assert {8, 96} <= {c.batch for c in others}
    assert {64, 96, 160} <= {c.size for c in others}
    assert {c.net for c in [*others, *cases.expand(["all"])]} == set(cases.NETS)


def test_cases_are_measured_once_and_batch_is_for_all():
    assert [tuple(c)[:3] for c in cases.expand(["lenet@28:4", "lenet@28", "lenet@28:8"], 2)] == [
        ("lenet", 28, 2)
    ]


def test_a_net_that_does_not_exist_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr(gl.models, "list_models", lambda pattern="*": ["lenet"])
    with pytest.raises(ValueError, match="no model 'resnet8' yet; there are: lenet"):
        bench("train", "resnet8@32", **TINY)


# ---- rows ----


def result(**more):
    side = {
        "images_per_second": 1234.5,
        "best": 1300.0,
        "first_step_seconds": 0.25,
        "peak_memory_bytes": 1.5e9,
    }
    said = {"work": "train", "case": "mobilenet_v2x0.25@224", "batch": 32, "threads": 2, "steal": 0.0}
    return {**said, **side, "kernel_set": "ref", **more}


def test_a_row_is_one_line_with_every_figure_in_its_column():
    peer = {**result(), "images_per_second": 400.0, "configuration": "channels_last, eager"}
    ratio = {"peer": peer, "ratio": 3.1, "ratio_low": 2.9, "ratio_high": 3.25}
    scaling = {"scaling": 1.9, "scaling_low": 1.8, "scaling_high": 1.95}
    columns = rows.columns(True, True)
    text = rows.line(columns, rows.cells(result(**ratio, **scaling), True, True))
    head = rows.head(columns).splitlines()
    assert "\n" not in text
    assert text.index("3.10 (2.90–3.25)") + len("3.10 (2.90–3.25)") == head[0].index("high)") + len("high)")
    for word in ("mobilenet_v2x0.25@224", "32", "1234", "1300", "1.50 GB", "0.25 s", "channels_last, eager"):
        assert word in text
    assert text.endswith("1.90 (1.80–1.95)")
    assert [len(part) for part in head[1].split("  ")] == [c.width for c in columns]


def test_a_row_without_peer_has_its_own_columns_only():
    columns = rows.columns(False, False)
    assert rows.cells(result(), False, False)[0] == "mobilenet_v2x0.25@224"
    assert len(rows.cells(result(), False, False)) == len(columns)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-9, "0.000000001"), (0.5, "0.5"), (9.999, "10.00"), (99.4, "99.4"), (123456.0, "123456")],
)
def test_numbers_have_digits_that_mean_something(value, text):
    assert rows.number(value) == text


# ---- machine ----


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setattr(machine, "TRIAD_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "stream", lambda n: _core.bench_triad(1 << 16))
    before = gl.get_num_threads()
    facts = machine.machine_facts(2)
    assert gl.get_num_threads() == before
    assert set(facts["fma_gflops_per_core"]) == set(facts["stream_gb_per_second"]) == {"1", "2"}
    assert all(
        value > 0 for key in ("fma_gflops_per_core", "stream_gb_per_second") for value in facts[key].values()
    )
    line = machine.machine_line(facts)
    assert facts["cpu"] in line
    assert "\n" not in line


@pytest.mark.parametrize("kernels", gl.show_config()["kernel_sets"])
def test_peaks_are_measured_with_every_kernel_set(kernels):
    if kernels == "ref":
        pytest.skip("plain C calls fmaf: minutes in a sanitizer's build, and no limit of anything")
    assert _core.bench_fma(kernels) > 1e8
    assert _core.bench_triad(1 << 16, kernels) > 1e6


def test_peaks_refuse_nonsense():
    with pytest.raises(ValueError, match="bytes must be >= 192"):
        _core.bench_triad(100)
    with pytest.raises(ValueError, match="bytes must be >= 192"):
        _core.bench_triad(-1)
    with pytest.raises(ValueError, match="nothere"):
        _core.bench_fma("nothere")


def test_taken_counts_what_others_use(monkeypatch):
    used = {os.getpid(): 100, 7: 50}
    monkeypatch.setattr(machine, "_ticks_of", lambda pid: used[pid])
    #                                         user nice system idle iowait irq softirq steal
    monkeypatch.setattr(machine, "_ticks", lambda: [200, 0, 50, 500, 0, 0, 0, 0])
    taken = machine.Taken([7])
    used |= {os.getpid(): 110, 7: 100}
    monkeypatch.setattr(machine, "_ticks", lambda: [270, 0, 60, 600, 5, 0, 0, 15])
    assert taken.shares() == {"steal": 15 / 200, "others": 20 / 200}  # 80 busy, of them 60 ours
    monkeypatch.setattr(machine, "_ticks", list)
    assert taken.shares() == {"steal": None, "others": None}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_ticks_are_read():
    ticks = machine._ticks()
    assert len(ticks) == 8
    assert machine._ticks_of(os.getpid()) <= sum(ticks)
    assert machine._ticks_of(2**22 + 1) == 0  # no such process


# ---- a real run ----


def test_train_is_measured(monkeypatch):
    found = bench("train", "lenet@28:4", threads=1, **TINY)
    assert {"images_per_second", "best", "peak_memory_bytes", "kernel_set", "steal", "others"} <= set(found)
    assert found["best"] >= found["images_per_second"] > 0
    assert found["kernel_set"] == gl.show_config()["kernel_set"]
    assert found["peak_memory_bytes"] > 1e7
    assert "peer" not in found
    assert "ratio" not in found


def test_peak_memory_is_that_of_the_side_and_not_of_who_started_it():
    held = np.ones(400 << 17)  # 400 MB here, which ru_maxrss would hand down
    found = bench("eval", "lenet@28:1", threads=1, **TINY)
    assert found["peak_memory_bytes"] < held.nbytes


def test_scaling_compares_with_one_thread():
    found = bench("eval", "lenet@28:4", threads=2, scaling=True, **TINY)
    assert found["scaling_low"] <= found["scaling"] <= found["scaling_high"]
    with pytest.raises(ValueError, match="threads=2 or more"):
        bench("eval", "lenet@28:4", threads=1, scaling=True, **TINY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"work": "fit"}, "work must be train or eval"),
        ({"peer": "jax"}, "there are: torch, keras, paddle, onnxruntime"),
        ({"peer": "onnxruntime"}, "evaluates only"),
        (
            {"peer": "torch", "peer_configuration": "nchw"},
            "torch has no configuration 'nchw'; there are: channels_last",
        ),
        ({"rounds": 0}, "rounds must be >= 1"),
        ({"seconds": 0.0}, "seconds in"),
        ({"seconds": float("nan")}, "seconds in"),
    ],
)
def test_bench_says_what_is_wrong(arguments, said):
    arguments = {"work": "train", **TINY, **arguments}
    with pytest.raises(ValueError, match=said):
        bench(arguments.pop("work"), "lenet@28:4", **arguments)


# ---- peers ----

FAKE = """
import json, sys, time
sys.path.insert(0, {bench!r})
import numpy as np, worker

def prepare(command):
    assert set(np.load(command["batch"]).files) == {{"x", "y"}}
    names = np.load(command["weights"]).files
    assert "conv1.weight" in names, names
    assert json.load(open(command["graph"]))["nodes"]
    print("chatter that is no answer")
    word = command["configuration"][0]
    if word == "broken":
        sys.exit("no compiler here")
    step = {{"slow": 0.02, "fast": 0.002}}.get(word, 0.002)

    def run():
        time.sleep(step)
        return {value}

    return run, {{"version": "fake 1.0"}}

worker.serve(prepare)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A peer of given configurations whose work gives `value`, an expression."""

    def make(value, words):
        file = tmp_path / "peer_fake.py"
        file.write_text(textwrap.dedent(FAKE).format(bench=str(BENCH), value=value))
        monkeypatch.setitem(sides.PEERS, "fake", lambda work: [sides.Configuration((w,)) for w in words])
        monkeypatch.setattr(sides, "script", lambda peer: file)
        monkeypatch.setattr(sides, "TRIAL_SECONDS", 0.05)

    return make


def first_loss():
    case = cases.parse("lenet@28:4")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 1, 28, 28), dtype=np.float32)
    return worker.make_plan(worker.make_net(case), case, "train").step(x, rng.integers(0, 1000, 4)).loss


def test_a_peer_runs_in_its_best_configuration_and_gives_a_ratio(fake):
    fake(repr(first_loss()), ["slow", "fast", "broken"])
    found = bench("train", "lenet@28:4", threads=1, peer="fake", rounds=3, seconds=0.05)
    peer = found["peer"]
    assert peer["configuration"] == "fast"
    assert set(peer["trial_seconds"]) == {"slow", "fast"}
    assert ["broken" in text and "no compiler here" in text for text in peer["left_out"]] == [True]
    assert {"images_per_second", "best", "peak_memory_bytes", "first_step_seconds", "version"} <= set(peer)
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert len(found["ratios"]) == 3
    json.dumps(found, allow_nan=False)


def test_other_work_gives_no_ratio(fake):
    fake(repr(first_loss() * 1.001), ["fast"])
    with pytest.raises(BenchError, match=r"not the same work: first loss .* in fake \(fast\)"):
        bench("train", "lenet@28:4", threads=1, peer="fake", **TINY)
    fake("float('nan')", ["fast"])
    with pytest.raises(BenchError, match="not the same work"):
        bench("train", "lenet@28:4", threads=1, peer="fake", **TINY)


def test_other_outputs_give_no_ratio(fake):
    fake("np.zeros((4, 1000), np.float32)", ["fast"])
    with pytest.raises(BenchError, match="not the same work: first outputs"):
        bench("eval", "lenet@28:4", threads=1, peer="fake", **TINY)


def test_a_peer_that_never_starts_is_said_once(fake):
    fake("1.0", ["broken", "broken"])
    with pytest.raises(BenchError, match=r"ended with status 1: no compiler here \(and so 1 more"):
        bench("train", "lenet@28:4", threads=1, peer="fake", **TINY)


def test_a_peer_without_its_interpreter(fake, tmp_path):
    fake("1.0", ["fast"])
    with pytest.raises(BenchError, match=r"nowhere cannot be started: No such file.*--peer-python names"):
        bench("train", "lenet@28:4", threads=1, peer="fake", peer_python=str(tmp_path / "nowhere"), **TINY)


def test_torch_configurations_cover_layouts_and_modes(monkeypatch):
    monkeypatch.setattr(sides.ctypes.util, "find_library", lambda name: f"lib{name}.so.2")
    made = sides.configurations("torch", "train")
    assert {c.words for c in made} == {
        (layout, mode) for layout in ("channels_last", "contiguous") for mode in ("eager", "compile")
    }
    assert all(dict(c.environment)["THP_MEM_ALLOC_ENABLE"] == "1" for c in made)
    assert str(made[0]) == "channels_last, eager, libjemalloc"
    assert str(made[-1]) == "channels_last, eager"  # the system's allocator has a chance too
    assert ("contiguous", "frozen") in {c.words for c in sides.configurations("torch", "eval")}
    only = sides.configurations("torch", "train", "channels_last, compile")
    assert {c.words for c in only} == {("channels_last", "compile")}


# ---- op by op and layer by layer ----


def test_profile_adds_up_and_prints():
    found = per_op.profile("train", cases.parse("lenet@28:4"), 1, 0.01)
    spent = sum(op[key] for op in found["ops"] for key in per_op._TIMES)
    assert spent == pytest.approx(found["step_seconds"] - found["unaccounted_seconds"])
    assert [op["op"] for op in found["ops"][-2:]] == ["loss", "update"]
    text = per_op.profile_text(found)
    assert "conv1" in text
    assert "train lenet@28, batch 4, 1 threads" in text
    assert json.loads(json.dumps(found)) == found


class Mixed(gl.nn.Module):
    """A layer of every kind that the cases' nets have."""

    def __init__(self):
        self.stem = gl.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = gl.nn.BatchNorm2d(8)
        self.deep = gl.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.point = gl.nn.Conv2d(8, 8, 1)
        self.pool = gl.nn.MaxPool2d(2)
        self.act, self.average, self.gate = gl.nn.Hardswish(), gl.nn.AdaptiveAvgPool2d(1), gl.nn.Hardsigmoid()
        self.fc = gl.nn.Linear(8, 10)

    def forward(self, x):
        y = self.act(self.bn(self.stem(x)))
        y = self.pool(y + self.point(self.deep(y)))
        y = y * self.gate(self.average(y))
        return self.fc(gl.nn.flatten(self.average(y)))


@pytest.fixture
def mixed(monkeypatch):
    monkeypatch.setattr(per_layer, "make_net", lambda case: Mixed().net((3, 16, 16), seed=0))
    monkeypatch.setattr(per_layer, "fma_peak", lambda threads: 1e11)
    monkeypatch.setattr(per_layer, "stream", lambda threads, size: 1e10)
    return per_layer.kernels(cases.Case("mixed", 16, 2), 1, 0.001)


def test_kernels_time_each_pass_of_each_layer(mixed):
    passes = {}
    for row in mixed["layers"]:
        passes.setdefault(row["layer"], set()).add(row["pass"])
    three = {"forward", "backward-data", "backward-weights"}
    assert passes["conv 3x3 s2 3×16×16 → 8"] == three - {
        "backward-data"
    }  # the stem's input wants no gradient
    assert passes["conv 3x3 s1 depthwise 8×8×8 → 8"] == {"forward", "backward"}  # one sweep, both gradients
    assert passes["conv 1x1 s1 8×8×8 → 8"] == three
    assert passes["Linear 8 → 10"] == three
    assert {layer.split()[0] for layer in passes} == {
        *("conv", "Linear", "BatchNorm2d", "Hardswish", "Hardsigmoid", "Add", "Mul", "MaxPool2d"),
        "AdaptiveAvgPool2d",
    }
    assert {g["group"] for g in mixed["groups"]} == {
        "stem",
        "depthwise",
        "1x1",
        "linear",
        "elementwise and pools",
    }


def test_kernels_rates_follow_from_shapes_and_time(mixed):
    (row,) = [r for r in mixed["layers"] if r["layer"].startswith("conv 1x1") and r["pass"] == "forward"]
    seconds = row["best_milliseconds"] / 1e3
    assert row["gflops"] == pytest.approx(2 * 8 * 8 * 64 * 2 / seconds / 1e9)
    assert row["peak_share"] == pytest.approx(row["gflops"] * 1e9 / 1e11)
    moved = (8 + 8) * 64 * 4 * 2  # in and out, two images
    assert row["stream_share"] == pytest.approx(moved / seconds / 1e10)
    (deep,) = [r for r in mixed["layers"] if "depthwise" in r["layer"] and r["pass"] == "forward"]
    moved = 2 * (8 * 64 * 4) * 2  # in and out, two images
    assert deep["gb_per_second"] == pytest.approx(moved / deep["best_milliseconds"] / 1e6)
    assert deep["stream_share"] == pytest.approx(deep["gb_per_second"] / 10)
    (back,) = [r for r in mixed["layers"] if "depthwise" in r["layer"] and r["pass"] == "backward"]
    moved = 3 * (8 * 64 * 4) * 2  # x and dy in, dx out
    assert back["gb_per_second"] == pytest.approx(moved / back["best_milliseconds"] / 1e6)
    products = 2 * (8 * 9 * 64) * 2  # of each gradient, in two images
    assert back["gflops"] == pytest.approx(2 * products / back["best_milliseconds"] / 1e6)
    assert sum(r["share"] for r in mixed["layers"]) == pytest.approx(1)
    assert [r["share"] for r in mixed["layers"]] == sorted(
        (r["share"] for r in mixed["layers"]), reverse=True
    )
    assert sum(g["share"] for g in mixed["groups"]) == pytest.approx(1)


def test_depthwise_of_the_pictures_learns_but_wants_no_gradient_of_them(monkeypatch):
    layer = per_layer.Layer(
        "Conv2d",
        tuple(sorted(gl.nn.Conv2d(8, 8, 3, padding=1, groups=8).config().items())),
        ((8, 6, 6),),
        (8, 6, 6),
        True,
        8 * 9 * 36,
    )
    assert [which for which, *_ in per_layer._passes(layer, 2, 0.001)] == ["forward", "backward-weights"]


def test_kernels_print_and_count_equal_layers(mixed):
    text = per_layer.kernels_text(mixed)
    assert "conv 3x3 s1 depthwise 8×8×8 → 8" in text
    assert json.loads(json.dumps(mixed)) == mixed
    found = per_layer.layers_of(gl.models.resnet18(num_classes=10, stem="cifar").net((3, 32, 32), seed=0))
    counts = {layer.text: n for layer, n in found.items()}
    assert counts["conv 3x3 s1 64×32×32 → 64"] == 4
    assert counts["conv 3x3 s1 512×4×4 → 512"] == 3


# ---- the command ----


@pytest.fixture
def quick(monkeypatch):
    """Machine facts that cost nothing."""
    facts = {"cpu": "a cpu", "cpus": 2, "gapless": "0", "python": "3", "numpy": "2", "system": "s"}
    facts |= {"fma_gflops_per_core": {"1": 100.0}, "stream_gb_per_second": {"1": 10.0}}
    monkeypatch.setattr(machine, "machine_facts", lambda threads: facts)
    monkeypatch.setattr(machine, "fma_peak", lambda threads: 100e9)


TINY_WORDS = ("--rounds", "1", "--seconds", "0.02", "--threads", "1")


def test_one_case_is_a_document_and_several_are_a_list(capsys, quick):
    assert cli.main(["bench", "--case", "lenet@28:2", *TINY_WORDS, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert {"images_per_second", "best", "peak_memory_bytes", "kernel_set", "machine"} <= set(one)
    assert one["case"] == "lenet@28"
    words = ["bench", "eval", "--case", "lenet@28:2", "--case", "lenet@12:2", *TINY_WORDS, "--json"]
    assert cli.main(words) == 0
    assert [r["case"] for r in json.loads(capsys.readouterr().out)] == ["lenet@28", "lenet@12"]


def test_people_get_a_row_per_case(capsys, quick):
    assert cli.main(["bench", "--case", "lenet@28:2", "--case", "resnet8@8:2", *TINY_WORDS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a cpu, 2 CPUs; fp32 peak 100 GFLOP/s per core")
    assert lines[2].split()[:3] == ["case", "batch", "images/s"]
    assert [line.split()[:2] for line in lines[4:]] == [["lenet@28", "2"], ["resnet8@8", "2"]]


def test_a_case_that_fails_does_not_stop_the_others(capsys, quick, monkeypatch):
    monkeypatch.setattr(gl.models, "list_models", lambda pattern="*": ["lenet"])
    words = ["bench", "--case", "resnet8@32:2", "--case", "lenet@28:2", *TINY_WORDS, "--json"]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    failed, measured = json.loads(said.out)
    assert "no model 'resnet8' yet" in failed["error"]
    assert measured["images_per_second"] > 0
    assert "resnet8@32: case: gapless has no model" in said.err


def test_profile_and_kernels_print_tables(capsys, quick):
    assert cli.main(["bench", "train", "--case", "lenet@28:2", "--profile", *TINY_WORDS]) == 0
    assert "update" in capsys.readouterr().out
    assert cli.main(["bench", "kernels", "--case", "lenet@12:2", *TINY_WORDS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["work"] == "kernels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kernels", "--peer", "torch"], "leave out --peer"),
        (["--profile", "--scaling"], "leave out --scaling"),
        (["kernels", "--profile"], "--profile is of train or eval"),
        (["--peer-python", "/x"], "belong to --peer"),
        (["--peer", "onnxruntime"], "evaluates only"),
        (["--peer", "tf"], "no peer 'tf'"),
        (["--seconds", "0"], "--seconds must be in"),
        (["--scaling", "--threads", "1"], "--threads 2 or more"),
        (["--case", "vgg@32"], "no net 'vgg'"),
    ],
)
def test_the_command_says_what_is_wrong_before_it_measures(capsys, words, said):
    assert cli.main(["bench", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_an_unquiet_machine_is_warned_of(capsys):
    show = command._Show(
        argparse.Namespace(json=True, work="train", profile=False, peer=None, scaling=False), {}, 1
    )
    show.result(result(steal=0.05, others=0.4, machine={}))
    said = capsys.readouterr().err
    assert "5 % of the CPUs' time went to other guests" in said
    assert "40 % of the CPUs' time went to other processes" in said
