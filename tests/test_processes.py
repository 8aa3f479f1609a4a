"""pplkit.processes: two processes play the game of one."""

import functools
import os
import socket
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import accelerate
import nbformat
import notebook_rules as rules
import pytest
import torch
from nbclient import NotebookClient
from safetensors.torch import load_file

from pplkit.game import Game
from pplkit.processes import Processes, current, free_port

# Both the parent and the two processes run this: games with and without batch normalisation in their surrogates, and with it
# in one of them. SGD, since
# Adam turns a rounding difference of a gradient that is almost 0 into a whole step; small steps where 52 normalised layers on
# 8 images make such differences grow. The gradients are compared by their norms, in the history. The third game is compiled,
# but not to machine code, which would cost half a minute.
PROGRAM = textwrap.dedent("""
    import functools, json, sys
    import torch
    from safetensors.torch import save_file
    from pplkit.data import ImageSet
    from pplkit.game import Game
    from pplkit.training import PPLConfig, train_ppl

    random = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.randint(0, 100, (24, 1, 16, 16), generator=random)
    for item, label in enumerate(labels.tolist()):
        images[item, :, 4 * label:4 * label + 4] += 140
    data = ImageSet(images.to(torch.uint8), labels)

    def play(folder):
        for name, warm, rate in (("two_conv", 2, 0.01), ("mobilenet_v3_small", 0, 1e-5), ("two_conv-compiled", 2, 0.01),
                                 ("mobilenet_v3_small+dense", 0, 1e-5)):
            calls, backbone = [], name.removesuffix("-compiled")
            config = PPLConfig(backbone=(2 * backbone.split("+"))[:2], warmup_steps=warm, steps=4, batch_size=8, widths=(4, 4),
                               optimiser="sgd", code_lengths=(4, 8), generator_learning_rate=rate, surrogate_learning_rate=rate,
                               refresh_every=3, generator_average=0.5, clean=0.5, restart_every=(0, 2),
                               generator_schedule="cosine", autocast=False, checkpoint_every=2)
            stop = lambda step, run: calls.append(step) or (False if backbone == "two_conv" and step == 4 else None)
            run = train_ppl(data, config, device="cpu", progress=False, callback=stop, compiled=name != backbone,
                            checkpoint=f"{folder}/{name}.checkpoint.safetensors")
            players = {"generator": run.generator, "first": run.surrogates[0], "second": run.surrogates[1]}
            state = {f"{player}/{key}": value.contiguous() for player, network in players.items()
                     for key, value in network.state_dict().items()}
            state |= {f"history/{what}": torch.tensor(series) for what, series in run.history.items()}
            yield name, state, calls

    if __name__ == "__main__":
        Game.compile = functools.partialmethod(Game.compile, backend="aot_eager")
        folder = sys.argv[1]
        for name, state, calls in play(folder):
            from pplkit.processes import current
            save_file(state, f"{folder}/{name}-{current().rank}-of-{current().count}.safetensors")
            with open(f"{folder}/calls-{name}-{current().rank}.json", "w") as file:
                json.dump(calls, file)
        tiny = PPLConfig(warmup_steps=0, steps=4, batch_size=8, widths=(4, 4), autocast=False, checkpoint_every=2)
        first = f"{folder}/first.safetensors"
        how = {"device": "cpu", "progress": False, "callback": lambda step, run: False}
        train_ppl(data, tiny, checkpoint=first, **how)
        before = open(first, "rb").read() if current().main else b""
        try:  # the second process does not see the first one's file
            train_ppl(data, tiny, checkpoint=first if current().main else f"{folder}/second.safetensors", resume=True, **how)
        except ValueError as error:
            with open(f"{folder}/apart-{current().rank}.txt", "w") as file:
                file.write(str(error))
        assert not current().main or open(first, "rb").read() == before
""")


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, dict]:
    """The folder of a run in two processes (gloo, on the CPU), and the states of the same games in this one."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "alone").mkdir()
    program = folder / "play.py"
    program.write_text(PROGRAM)
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    # what `accelerate launch` itself uses for several GPUs of one machine; on CPUs it would want mpirun
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program),
               str(folder)]
    launched = subprocess.Popen(command, env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    namespace: dict = {"__name__": "alone"}
    exec(PROGRAM, namespace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Game, "compile", functools.partialmethod(Game.compile, backend="aot_eager"))
        alone = {name: state for name, state, _ in namespace["play"](folder / "alone")}
    said, _ = launched.communicate(timeout=120)
    assert launched.returncode == 0, said
    return folder, alone


@pytest.mark.parametrize("game", ["two_conv", "mobilenet_v3_small", "two_conv-compiled", "mobilenet_v3_small+dense"])
def test_two_processes_end_with_the_weights_of_one(played, game):
    folder, alone = played
    states = [load_file(folder / f"{game}-{rank}-of-2.safetensors") for rank in (0, 1)]
    assert states[0].keys() == alone[game].keys()
    for name, expected in alone[game].items():
        assert torch.equal(states[0][name], states[1][name]), name  # they never drift apart
        assert torch.allclose(states[0][name].double(), expected.double(), atol=2e-5, rtol=3e-4), name
    moved = alone[game]["history/perturbation"]
    assert len(moved) == (4 if game.startswith("mobilenet") else 2)  # the callback of the first process ended both


def test_only_the_first_process_writes_and_calls_back(played):
    folder, _ = played
    assert (folder / "calls-two_conv-0.json").read_text() == "[2, 4]"
    assert (folder / "calls-two_conv-1.json").read_text() == "[]"
    assert len(list(folder.glob("*.checkpoint.safetensors"))) == 4


@pytest.mark.parametrize(("rank", "step"), [(0, 2), (1, 0)])
def test_a_checkpoint_that_only_one_process_sees_is_refused(played, rank, step):
    said = (played[0] / f"apart-{rank}.txt").read_text()
    assert said.startswith(f"this process continues from step {step}, another one from another step: checkpoint ")


def test_processes_on_the_cpu_do_not_talk_through_the_gpus(monkeypatch):
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "PartialState", lambda cpu, timeout: asked.append((cpu, timeout >= timedelta(hours=1))))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert current(torch.device("cpu")) == current(torch.device("cuda")) == current() == Processes(1, 2)
    assert asked == [(True, True), (False, True), (False, True)]
    with pytest.raises(ValueError, match="device 'cuda:0' is one GPU, but 2 processes play: give 'cuda'"):
        current(torch.device("cuda:0"))


def test_alone_nothing_changes():
    own = torch.arange(6.0).view(3, 2).requires_grad_()
    alone = current()
    assert alone == Processes() and alone.main
    assert alone.gather(own) is own and alone.share(own) is own and alone.any(True, own.device) is True
    alone.add([own, None])
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    assert type(alone.synchronise(network)[0]) is torch.nn.BatchNorm2d


def test_gradients_are_summed_in_one_message(monkeypatch):
    messages = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: messages.append(tensor.mul_(3).numel()))
    own = [torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), None, torch.randn(5), torch.tensor(2.0)]
    expected = [tensor * 3 for tensor in own if tensor is not None]
    Processes(0, 3).add(iter(own))
    assert messages == [96 + 5 + 1]
    for tensor, total in zip((tensor for tensor in own if tensor is not None), expected, strict=True):
        assert torch.equal(tensor, total) and tensor.stride() == total.stride()
    Processes(0, 3).add([None])
    assert len(messages) == 1


def test_batches_are_dealt_out_in_order_and_evenly():
    batch = torch.arange(8)
    assert torch.equal(torch.cat([Processes(rank, 4).share(batch) for rank in range(4)]), batch)
    with pytest.raises(ValueError, match="batch of 9 images cannot be shared evenly by 2 processes"):
        Processes(0, 2).check_batch(9)


# Notebook 08 up to its launch, in a kernel of its own, with a small game. What the test adds: threads that a forked process
# does not have, a guard against whatever spoils a later fork on a machine with GPUs, and a file per process that played.
BEFORE_LAUNCH = textwrap.dedent("""
    import os
    kernel = os.getpid()

    def guarded(module, name):
        original = getattr(module, name)
        def call(*arguments, **options):
            nvml = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") == "1"  # accelerate's way to look: leaves the GPU alone
            assert os.getpid() != kernel or nvml, f"{name} was called before the launch"
            return original(*arguments, **options)
        setattr(module, name, call)
        return original

    restored = [(module, name, guarded(module, name)) for module, name in (
        (torch.cuda, "is_available"), (torch.cuda, "device_count"), (torch.cuda, "_lazy_init"),
        (torch.autograd.graph, "_engine_run_backward"), (torch.autograd, "backward"), (torch.autograd, "grad"))]
""")
BEFORE_CELL = textwrap.dedent("""
    config = dataclasses.replace(config, optimiser="sgd", autocast=False)
    torch.set_num_threads(2)
    torch.rand(500, 500).exp() @ torch.rand(500, 500)
    train_ppl = training.train_ppl

    def watched(*arguments, **options):
        run = train_ppl(*arguments, **options)
        rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        Path(f"{checkpoint}.{rank}-of-{count}").touch()
        return run

    training.train_ppl = watched
""")
AFTER_CELL = textwrap.dedent("""
    for module, name, original in restored:
        setattr(module, name, original)
    torch.set_num_threads(1)
    alone = train_ppl(split.train, config, device="cpu", progress=False).generator.named_parameters()
    tensors, _ = storage.read_tensors(checkpoint)
    beginning = dict(Game(config, split.train.images, split.train.labels).generator.named_parameters())
    moved, apart = 0.0, 0.0
    for name, weights in alone:
        moved = max(moved, (weights - beginning[name]).abs().max().item())
        apart = max(apart, (weights - tensors[f"generator/{name}"]).abs().max().item())
    assert moved > 1e-3, moved
    assert apart < moved / 100, (apart, moved)
""")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_notebook_08_launches_its_game_in_two_processes(device, tmp_path, monkeypatch):
    """`notebook_launcher`, called in a Jupyter kernel, ends with the generator of one process; a hang fails after a minute."""
    notebook = rules.read(rules.NOTEBOOKS / "08_training_on_gpu.ipynb")
    cells = [cell for _, cell in rules.code_cells(notebook)]
    launch = next(number for number, cell in enumerate(cells) if "notebook_launcher(" in cell.source)
    checkpoint = tmp_path / "run.safetensors"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    chosen = {"processes": 2, "device": device, "warmup_steps": 4, "steps": 4, "batch_size": 32, "checkpoint": str(checkpoint)}
    assert chosen.keys() <= rules.parameters(notebook)[0].keys()
    played = nbformat.v4.new_notebook()
    for cell in cells[:launch]:
        if cell.metadata.get("nbgrader"):
            continue  # an exercise
        played.cells.append(cell)
        if "parameters" in rules.tags(cell):
            played.cells.append(nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in chosen.items())))
            played.cells.append(nbformat.v4.new_code_cell("import torch\n" + BEFORE_LAUNCH))
    played.cells += [nbformat.v4.new_code_cell(BEFORE_CELL), cells[launch], nbformat.v4.new_code_cell(AFTER_CELL)]
    with rules.headless():
        NotebookClient(played, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert sorted(path.name for path in tmp_path.glob("*-of-*")) == [f"{checkpoint.name}.{rank}-of-2" for rank in (0, 1)]


def test_a_free_port_can_be_listened_on():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(free_port())))
