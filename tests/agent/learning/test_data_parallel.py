"""The learner in two processes against one, on the tabletop: the same parts of the same batches, the same numbers."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from agent.algorithms.sft import SFTBatch, SFTEncoder, sft_loss
from agent.learning.config import OptimizerName, learning_rate_share
from agent.learning.learner import Learner
from agent.recipes import sft_tiny
from agent.report.curves import read_curves
from agent.runs.checks import check_config
from agent.runs.run_folder import RunFolder, start_run
from agent.training import loop
from agent.training.config import RunConfig
from agent.training.demonstrations import collect_demonstrations
from rollout.dataset.batches import TrainingData
from rollout.distributed import Process, run_in_processes
from vla_model.create import shape_of
from vla_model.heads.moe import balance_experts
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.precision import native_dtype
from vla_model.sizes import SIZES


def tiny(num_processes: int = 1, optimizer: OptimizerName = "adamw") -> RunConfig:
    config = sft_tiny()
    model = replace(config.model, balancing_rate=0.05)  # the experts' biases are one thing that processes must share
    learner = replace(config.learner, num_updates=5, num_processes=num_processes, optimizer=optimizer)
    return replace(config, model=model, learner=learner)


def learn(config: RunConfig, run: RunFolder, process: Process) -> dict[str, float]:
    """The loop's, with a point of every update in the curves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        return loop.learn(config, run, process)


def learn_until_a_process_dies(config: RunConfig, run: RunFolder, process: Process) -> None:
    update = Learner.update

    def dying(self: Learner[VLA], *args: Any) -> dict[str, float]:
        if process.rank == 1 and self.num_updates_done == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", dying)
        loop.learn(config, run, process)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demonstrations") / "dataset"
    collect_demonstrations(tiny().demonstrations, root, tiny().rollout)
    return root


def new_run(root: Path, config: RunConfig, dataset: Path) -> RunFolder:
    run = start_run(root, config)
    shutil.copytree(dataset, run.dataset)
    return run


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Each of several processes has one, also for the step itself, whose sums two threads would split."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learned_by_one(config: RunConfig, root: Path, dataset: Path) -> RunFolder:
    run = new_run(root, config, dataset)
    learn(config, run, Process(interrupted=lambda: False, report=lambda **_: None))
    return run


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> RunFolder:
    """What one process learns."""
    return learned_by_one(tiny(), tmp_path_factory.mktemp("one") / "run", dataset)


def state(run: RunFolder) -> dict[str, Tensor]:
    last = run.last_checkpoint()
    assert last is not None and last.name == "000005"
    return load_file(last / "learner.safetensors")


def assert_two_processes_learn_the_same(config: RunConfig, one: RunFolder, run: RunFolder) -> None:
    figures = run_in_processes(partial(learn, config, run), 2, run.root)
    assert figures["samples_per_s"] > 0
    ours, theirs = ({c.tag: c.values for c in read_curves(r.tensorboard) if "loss/" in c.tag} for r in (run, one))
    assert ours == theirs
    expected, found = state(one), state(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_two_processes_take_the_same_steps_as_one(one: RunFolder, dataset: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", tiny(2), dataset)
    assert_two_processes_learn_the_same(tiny(2), one, run)
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["000002", "000004", "000005"]


def test_two_processes_take_the_same_steps_as_one_by_muon(dataset: Path, tmp_path: Path) -> None:
    one = learned_by_one(tiny(1, "muon"), tmp_path / "one", dataset)
    assert any(name.startswith("muon.") for name in state(one))
    config = tiny(2, "muon")
    assert_two_processes_learn_the_same(config, one, new_run(tmp_path / "two", config, dataset))


def test_one_process_resumes_a_run_of_two(one: RunFolder, dataset: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", tiny(2), dataset)
    with pytest.raises(RuntimeError, match="process 1 died"):
        run_in_processes(partial(learn_until_a_process_dies, tiny(2), run), 2, run.root)
    last = run.last_checkpoint()
    assert last is not None and last.name == "000002"
    loop.update(tiny(1), start_run(run.root, tiny(1), resume=True))
    expected, found = state(one), state(run)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_one_process_steps_on_the_loss_of_the_batch(one: RunFolder) -> None:
    """The learner written out, without threads."""
    config, data = tiny(), TrainingData([one.dataset])
    torch.manual_seed(config.seed)
    model = VLA(shape_of(config.model, data.world_spec))
    processor = Processor.from_statistics(data.world_spec, data.stats, model.config.instruction_length)
    encode = SFTEncoder(processor, data.instructions, model.config, seed=config.seed)
    reference = copy.deepcopy(model).train()
    parameters = list(reference.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.learner.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
    learner, dtype = Learner(model, replace(config.learner, num_parts=1)), native_dtype(torch.device("cpu"))
    batches = data.batches(config.learner.batch_size, model.config.chunk_size, seed=config.seed)
    with closing(learner), batches:
        for update in range(3):
            batch = encode(next(batches), update)
            learner.update(batch, lambda model, part: sft_loss(model, part, config.sft))
            with torch.autocast("cpu", dtype, dtype != torch.float32, cache_enabled=False):
                loss, _ = sft_loss(reference, batch, config.sft)
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.contiguous()
            torch.nn.utils.clip_grad_norm_(parameters, config.learner.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = config.learner.learning_rate * learning_rate_share(update, config.learner)
            optimizer.step()
            balance_experts(reference)
    for (name, ours), theirs in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_share_of_a_batch_is_augmented_as_within_the_whole(one: RunFolder) -> None:
    data = TrainingData([one.dataset])
    model_config = SIZES[tiny().model.name](data.world_spec)
    model_config.action_distribution = "flow"  # whose loss takes noise
    processor = Processor.from_statistics(data.world_spec, data.stats, model_config.instruction_length)

    def encoded(index: int, count: int) -> SFTBatch:
        encode = SFTEncoder(processor, data.instructions, model_config, seed=3, part=(index, count))
        with data.batches(8, model_config.chunk_size, seed=3, start_step=7, part=(index, count)) as batches:
            return encode(next(batches), 7)

    for index in range(2):
        share, expected = encoded(index, 2), encoded(0, 1).part(index, 2)
        assert torch.equal(share.actions, expected.actions)
        assert share.inputs.light is not None and expected.inputs.light is not None
        assert torch.equal(share.inputs.light, expected.inputs.light)
        assert share.inputs.action_noise is not None and expected.inputs.action_noise is not None
        assert torch.equal(share.inputs.action_noise, expected.inputs.action_noise)
        assert share.inputs.shift_px and expected.inputs.shift_px
        for camera, shift in expected.inputs.shift_px.items():
            assert torch.equal(share.inputs.shift_px[camera], shift)
            assert torch.equal(share.inputs.frames[camera], expected.inputs.frames[camera])


def test_an_indivisible_batch_is_refused_before_processes_start() -> None:
    learner = tiny().learner
    check_config(replace(learner, num_processes=2))
    for wrong in ({"num_processes": 3}, {"num_processes": 0}, {"num_processes": 2, "batch_size": 7}):
        with pytest.raises(ValueError, match="num-processes is"):
            check_config(replace(learner, **wrong))
    with pytest.raises(ValueError, match="a batch of 1 cannot be computed in 2 parts"):
        check_config(replace(learner, batch_size=1))
