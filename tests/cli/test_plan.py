import dataclasses
import json
import re
import sys
import types

import jax
import pytest

from switch_jax.cli import main
from switch_jax.model.groups import Groups
from switch_jax.planning import compiler, costs, plan, search
from switch_jax.planning.collective_costs import Collective
from tests.cli.mistakes import refused

SWITCH = ["--gin_file=models/switch_base.gin", "--gin_file=runs/pretrain.gin"]
TINY = [
    *SWITCH,
    "--gin.EMBED_DIM=128",
    "--gin.NUM_ENCODER_LAYERS=2",
    "--gin.NUM_DECODER_LAYERS=2",
    "--gin.NUM_EXPERTS=8",
    "--gin.BATCH_SIZE=64",
    "--gin.GROUP_SIZE=2048",
    "--gin.MLP_DIM=256",
    "--gin.NUM_HEADS=2",
]
WHOLE = "--gin.FULLY_SHARDED_WEIGHTS=False"
GIB = 2**30
GROUPS = {
    "encoder": Groups(8192, 80, 1.25, 0.0013),
    "decoder": Groups(1824, 18, 1.263, 0.0244, "the decoder drops 2.44 %"),
}
CONTRACT = (
    "topology mesh parameters hbm_bytes_per_chip hbm_limit_bytes fits model_flops compiled_flops "
    "estimated_cycles cycles_by_part floor_by_part collectives step_seconds "
    "tokens_per_second train_steps days chip_hours compile_seconds"
).split()


def _plan(hardware, mesh, fits, too_many_bytes, waiting):
    """A plan of a step that takes 3 GiB and 2 ms of cycles on v5p, or too many."""
    cycles = {"attention": 2_626_495, "experts": 875_498}  # 1.5 ms and 0.5 ms of 1.751 GHz
    exchanges = [Collective("all-to-all", "bf16", "expert", 8, 12_000_000, 0.0008, 0.0005)]
    taken = costs.Costs(
        arguments_bytes=GIB,
        outputs_bytes=0,
        temporaries_bytes=3 * GIB // 2,
        program_bytes=GIB // 2,
        compiled_flops=3e12,
        estimated_cycles=3_501_993,
        scheduled_cycles=1000,
        uncounted={"sort": 2},
        cycles_by_part=cycles,
        floor_by_part={"attention": 1_500_000, "experts": 800_000},
        collectives=exchanges,
        compute_seconds=0.002,
        collective_seconds=0.0008,
        waiting_seconds=waiting,
    )
    return plan.Plan(
        hardware=hardware,
        mesh=(mesh.data or hardware.devices, mesh.expert, mesh.model),
        parameters=5_688_960,
        parameter_bytes=22_755_840,
        optimizer_bytes=224_056,
        teacher_bytes=2**30,
        hbm_bytes_per_chip=3 * GIB if fits else too_many_bytes,
        hbm_limit_bytes=16 * GIB,
        host_bytes=20 * GIB,
        host_limit_bytes=hardware.host_memory_bytes,
        model_flops=2e12,
        model_flops_with_empty_slots=2.5e12,
        train_steps=550_000,
        batch_size=160,
        tokens_per_step=40_000,
        input_tokens_per_step=32_000,
        host_tokens_per_step=40_000 // hardware.hosts,
        routing_groups=GROUPS,
        compile_seconds=7.0,
        costs=taken if fits else None,
        waiting_seconds_elsewhere={},
    )


@pytest.fixture
def planned(monkeypatch):
    """Replaces `make_plan`; `planned.made` collects its configs, the others say what it gives."""
    calls = types.SimpleNamespace(
        made=[], fits=lambda config: True, too_many_bytes=30 * GIB, waiting=0.0005, changed={}
    )

    def make_plan(config, hardware):
        calls.made.append(config)
        fits, sizes = calls.fits(config), (calls.too_many_bytes, calls.waiting)
        return dataclasses.replace(_plan(hardware, config.mesh, fits, *sizes), **calls.changed)

    monkeypatch.setattr(plan, "make_plan", make_plan)
    monkeypatch.setattr(search, "make_plan", make_plan)
    monkeypatch.setattr(search, "devices", lambda _: jax.devices())
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v5p-100"], r"no TPU topology 'v5p-100' .*known are v5p-8, .*v5p-256"),
        (["--topology=v5p-8", "--price_per_chip_hour=-1"], r"hour=-1.0: write a price in USD, 0"),
        (["--topology=v5p-8", "--price_per_chip_hour=inf"], r"hour=inf: write a price in USD"),
        (["--topology=v5p-8", "--mesh=4,1"], r"argument --mesh: 4,1: write three numbers"),
        (["--topology=v5p-8", "--picture=plan.docx"], r"plan.docx: .* ends in .png or .svg"),
        (["--topology=v5p-8", f"--picture={__file__}/plan.png"], "plan.png cannot be written: Not"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, message, capsys, planned):
    assert re.search(message, refused(capsys, "plan", *SWITCH, *arguments))
    assert not planned.made


def test_a_mesh_that_does_not_multiply_up_to_the_slice(capsys, monkeypatch):
    chips = [types.SimpleNamespace(platform="tpu")] * 4
    monkeypatch.setattr(plan, "devices", lambda _: chips)
    line = refused(capsys, "plan", *TINY, "--topology=v5p-8", "--mesh=1,8,1")
    assert "= 8, but the number of tpu devices is 4; " in line and "product is 4" in line


def test_a_batch_is_refused_as_training_refuses_it(capsys, monkeypatch):
    monkeypatch.setattr(plan, "devices", lambda _: jax.devices())
    flags = [*TINY, "--topology=v5e-8", "--mesh=1,8,1", "--gin.BATCH_SIZE=60"]
    assert "60 does not divide over 8 streams" in refused(capsys, "plan", *flags)


def test_without_libtpu_the_message_names_the_command(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setattr(compiler, "_schedules", None)
    line = refused(capsys, "plan", *TINY, "--topology=v5p-8")
    assert re.search(r"libtpu, and it is not installed: .*", line)
    assert line.endswith(" -m pip install -c requirements.txt 'jax[tpu]', in the checkout")


def test_standard_output_is_only_json(capsys, planned):
    assert main(["plan", *TINY, "--topology=v5p-8", "--mesh=1,4,1", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert set(CONTRACT) <= set(result)
    assert result["topology"] == "v5p-8"
    assert result["mesh"] == {"data": 1, "expert": 4, "model": 1}
    assert result["fits"] is True
    assert (result["hbm_bytes_per_chip"], result["hbm_limit_bytes"]) == (3 * GIB, 16 * GIB)
    assert result["routing_groups"]["decoder"] == GROUPS["decoder"]._asdict()
    (exchange,) = result["collectives"]
    assert (exchange["op"], exchange["axis"], exchange["count"]) == ("all-to-all", "expert", 8)
    assert (exchange["seconds"], exchange["waiting_seconds"]) == (0.0008, 0.0005)
    assert result["step_seconds"] == pytest.approx(0.0025)
    peak = 4 * 459e12  # FLOP/s of the slice's chips
    assert result["utilisation_with_waiting"] == pytest.approx(2e12 / 0.0025 / peak, rel=1e-3)
    assert result["tokens_per_second"] == pytest.approx(40_000 / 0.0025)
    assert re.match(r"compiling the step for v5p-8\ncompiled .* in \d+ s\n$", captured.err)


def test_the_table(capsys, planned):
    assert main(["plan", *TINY, "--topology=v5p-8", "--mesh=1,4,1"]) == 0
    output = capsys.readouterr().out
    for line in (
        r"slice +v5p-8: 4 chips, 4 devices",
        r"mesh +data 1 x expert 4 x model 1",
        r"parameters +5.69 M, 21.7 MiB in total",
        r"teacher +1.0 GiB in total",
        r"routing, encoder +8,192 tokens in a group, 80 slots .* 0.13 % dropped at even routing$",
        r"routing, decoder +1,824 tokens in a group, 18 slots .* 2.44 % dropped at even routing$",
        r"warning +the decoder drops 2.44 %$",
        r"memory of a chip +3.0 GiB of 16.0 GiB: it fits",
        r"memory of a host +about 20.0 GiB of 448.0 GiB$",
        r"  program +0.5 GiB",
        r"compiled FLOPs +3 T, 1.500 times the model's, 1.200 times",
        r"  attention +2,626,495 \(75.00 %\)",
        r"  not counted +2 sort",
        r"all-to-all over expert +8 x bf16, 12 MB a device, 0.80 ms, the devices wait for 0.50",
        r"utilisation +54.46 % of peak, by model FLOPs and cycles, 43.57 % with waiting$",
        r"step-time model +2.5 ms = 2.0 ms of cycles at 1.75 GHz \+ 0.5 ms waiting",
        r" +for exchanges, 0.8 ms in all; a model,",
        r"tokens a second +16 M, of which each host reads 16 M$",
        # 16 / 0.45 = 36 streams, and the next that divide 160 rows.
        r" +a host's own part takes 40 streams: DATA_STREAMS = 40$",
        r"550,000 steps \(TRAIN_STEPS\) +0.38 hours on 4 chips: 1.5 chip-hours$",
    ):
        assert re.search(rf"^{line}", output, re.M), line
    assert "wait for exchanges in" not in output  # 0.5 of 2.5 ms
    assert main(["plan", *TINY, "--topology=v5p-16", "--mesh=2,4,1"]) == 0
    output = capsys.readouterr().out
    assert "16 M, of which each host reads 8 M\n" in output  # of two
    assert "a host's own part takes 20 streams: DATA_STREAMS = 40\n" in output  # 80 rows, not 18
    assert "between slices" not in output
    assert main(["plan", *TINY, "--topology=2xv5e-4", "--mesh=2,4,1"]) == 0
    network = "and, between slices, over the hosts' network with 3.1 GB/s a chip\n"
    assert network in capsys.readouterr().out
    planned.changed = {"batch_size": 32}
    assert main(["plan", *TINY, "--topology=v5p-8", "--mesh=1,4,1"]) == 0
    assert "takes 32 streams: DATA_STREAMS = 32\n" in capsys.readouterr().out  # a row of each


def test_the_verdict_has_the_price_and_where_devices_would_wait_less(capsys, planned):
    planned.changed = {"train_steps": 10_000_000, "waiting_seconds_elsewhere": {"v5p:2x2x1": 3e-4}}
    flags = ["--topology=v5p-8", "--mesh=1,4,1", "--price_per_chip_hour=4.2"]
    assert main(["plan", *TINY, *flags]) == 0
    verdict, price = capsys.readouterr().out.splitlines()[-2:]
    # 1e7 steps of 2.5 ms are 6.94 hours, on 4 chips 27.8.
    assert re.fullmatch(r"10,000,000 steps .* 6.9 hours on 4 chips: 28 chip-hours", verdict)
    assert re.fullmatch("price +16.80 USD an hour, 116.67 USD in all, at 4.2 for a chip's", price)
    planned.waiting = 1e-3
    assert main(["plan", *TINY, *flags]) == 0
    warning = capsys.readouterr().out.splitlines()[-3:]
    assert re.fullmatch("warning +the devices wait for exchanges in 33% of a step;", warning[0])
    assert "--search compares the meshes of this slice" in warning[1]
    assert warning[2].strip() == "v5p:2x2x1, as many chips: 0.3 ms waiting"
    assert main(["plan", *TINY, *flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cost"] == pytest.approx(4.2 * result["chip_hours"])
    assert result["cost_per_hour"] == 16.8
    assert result["waiting_seconds_elsewhere"] == {"v5p:2x2x1": 3e-4}


def test_few_streams_of_several_hosts_are_warned_of(capsys, planned):
    flags = [*TINY, "--topology=v5p-16", "--mesh=2,4,1"]
    assert main(["plan", *flags]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["plan", *flags, "--gin.DATA_STREAMS=1"]) == 0
    assert "warning: DATA_STREAMS = 1, and hosts split the batch" in capsys.readouterr().err


def test_out_of_memory_reports_the_sizes_and_the_nearest_change(capsys, planned):
    planned.fits = lambda config: config.run.num_microbatches >= 4
    arguments = ["plan", *TINY, WHOLE, "--topology=v5e-4", "--mesh=1,4,1"]
    assert main(arguments) == 3
    captured = capsys.readouterr()
    assert re.search(r"memory of a chip +30.0 GiB of 16.0 GiB: OUT OF MEMORY", captured.out)
    # Each of 4 devices has 16 rows; so have groups of 114 targets, of which a microbatch has 4.
    flags = "--gin.FULLY_SHARDED_WEIGHTS=True --gin.REMAT_POLICY=full --gin.NUM_MICROBATCHES=4"
    flags += " --gin.GROUP_SIZE=2048 --gin.DECODER_GROUP_SIZE=456"
    assert f"nearest change that fits: {flags} (3.0 GiB a chip)" in captured.out
    assert (
        "the step does not fit: 30.0 of 16.0 GiB a chip; trying 4 changes that save memory"
        in captured.err
    )
    # Sharding alone is not: the weights have 22 MB.
    assert captured.err.count("compiling the step with change ") == 3
    # Changes are tried on the mesh that was asked for.
    assert {(c.mesh.data, c.mesh.expert, c.mesh.model) for c in planned.made} == {(1, 4, 1)}
    changed = planned.made[-1]
    assert main([*arguments, *flags.split()]) == 0
    assert (planned.made[-1].model, planned.made[-1].run) == (changed.model, changed.run)


def test_microbatches_that_cannot_suffice_are_not_compiled(capsys, planned):
    """The step takes 100 GiB; 50 and 25 are more than a chip's 16, and 12.5 is less."""
    planned.too_many_bytes = 100 * GIB
    planned.fits = lambda config: config.run.num_microbatches >= 8
    assert main(["plan", *TINY, WHOLE, "--topology=v5e-4", "--mesh=1,4,1"]) == 3
    microbatches = [config.run.num_microbatches for config in planned.made]
    assert microbatches == [1, 1, 8]
    captured = capsys.readouterr()
    assert "left out, since it needs at least 25.0 GiB a chip: --gin.FULLY_S" in captured.err
    assert "NUM_MICROBATCHES=8" in captured.out


def test_out_of_memory_where_no_change_fits(capsys, planned):
    planned.fits = lambda config: False
    arguments = ["plan", *TINY, "--topology=v5e-4", "--mesh=1,4,1"]
    assert main(arguments) == 3
    assert "nearest change that fits: none of those tried" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 3
    result = json.loads(capsys.readouterr().out)
    found = [result[name] for name in ("fits", "step_seconds", "nearest_change")]
    assert found == [False, None, None] and result["hbm_bytes_per_chip"] == 30 * GIB


def test_search_ranks_meshes_and_shows_the_best(tmp_path, capsys, planned):
    planned.fits = lambda config: config.mesh.expert == 4
    arguments = ["--topology=v5e-8", "--search=3", "--gin.BATCH_SIZE=128"]
    assert main(["plan", *TINY, *arguments]) == 0
    output, messages = capsys.readouterr()
    shown = re.findall(r"compiled mesh \d of 3: \d x (\d) x \d .*\n  (.*)\n", messages)
    assert len(shown) == 3
    for expert, outcome in shown:
        assert ("ms a step" if expert == "4" else "out of memory") in outcome
    head, *ranking = output.split("\n\n")[0].splitlines()
    assert head.split() == ["data", "expert", "model", "GiB/chip", "step", "ms", "tokens/s"]
    fit = ["out of memory" not in line for line in ranking]
    assert len(fit) == 3 and fit == sorted(fit, reverse=True)
    assert [line.split()[1] == "4" for line in ranking] == fit
    assert re.search(r"mesh +data \d x expert 4 x model", output)

    picture = tmp_path / "plan.svg"
    assert main(["plan", *TINY, *arguments, "--json", f"--picture={picture}"]) == 0
    output, messages = capsys.readouterr()
    result = json.loads(output)
    assert [p["fits"] for p in result["search"]] == fit
    assert result["mesh"] == result["search"][0]["mesh"]
    assert f"picture: {picture}" in messages and picture.read_bytes().startswith(b"<?xml")


def test_fine_tuning_is_planned_without_a_checkpoint_and_on_the_mesh_of_the_gin_files(planned):
    files = ["--gin_file=models/t5_demo.gin", "--gin_file=runs/finetune.gin"]
    assert main(["plan", *files, "--topology=v5p-8", "--gin.MESH_MODEL=2"]) == 0
    (config,) = planned.made
    assert config.model.dropout_rate == 0.1
    assert (config.mesh.data, config.mesh.expert, config.mesh.model) == (None, 1, 2)
