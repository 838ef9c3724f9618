"""Every option of every command: invalid values are refused before anything is written."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import pytest

from agent import cli
from agent.commands.collect import Collect
from agent.commands.compare import Compare
from agent.commands.console import Console
from agent.commands.drive import Drive
from agent.commands.eval import Eval
from agent.commands.experts import Experts
from agent.commands.plan import Plan
from agent.commands.report import Report
from agent.commands.scale import Scale
from agent.commands.serve import Serve
from agent.commands.shared.acting import ActingConfig
from agent.commands.train import Train
from agent.console.config import PageConfig
from agent.recipes import RECIPES
from agent.robot.drive import DriveConfig
from agent.runs.checks import check_config
from agent.serve.server import ServerConfig
from agent.studies.scale.config import GridConfig
from agent.training.config import DemonstrationsConfig
from rollout.inference import InferenceConfig
from rollout.workers.workers import WorkersConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PLACE = Path("somewhere")
ROOTS: tuple[DataclassInstance, ...] = (
    *(RECIPES[name]() for name in ("sft_demo", "ppo_tabletop", "grpo_tabletop", "rft_few", "dagger_few")),
    *(Collect(out=PLACE), Train(out=PLACE), Eval(policy="expert"), Report(run=PLACE)),
    *(Experts(policy="x"), Compare(before=PLACE, after=PLACE), Scale(out=PLACE), Drive(policy="x"), Serve(policy="x")),
    *(Console(policy="x"), Plan(), ActingConfig(), DemonstrationsConfig(), GridConfig(), DriveConfig()),
    *(PageConfig(), ServerConfig(), WorkersConfig(inference=InferenceConfig())),
)
"""What the commands' options are made of."""


@dataclass(frozen=True)
class Option:
    """A field of one of them that is a number, or numbers."""

    root: DataclassInstance
    path: tuple[str, ...]
    name: str
    """Class and field."""
    is_float: bool
    is_tuple: bool

    def at(self, value: float) -> DataclassInstance:
        """The root with that value there."""
        return _replaced(self.root, self.path, (value,) if self.is_tuple else value)


def _replaced(config: Any, path: tuple[str, ...], value: object) -> Any:
    first, *rest = path
    return replace(config, **{first: _replaced(getattr(config, first), tuple(rest), value) if rest else value})


def _types(hint: Any) -> Iterator[Any]:
    """All parts of a type hint."""
    yield hint
    if get_origin(hint) is not typing.Literal:
        for part in get_args(hint):
            yield from _types(part)


def options(root: DataclassInstance, config: DataclassInstance, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Of a root, those of a config in it."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, parts, here = getattr(config, field.name), list(_types(hints[field.name])), (*path, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from options(root, value, here)
        elif int in parts or float in parts:
            name = f"{type(config).__name__}.{field.name}"
            yield Option(root, here, name, float in parts, any(get_origin(part) is tuple for part in parts))


OPTIONS = {option.name: option for root in ROOTS for option in options(root, root)}


def accepted(value: float, *, floats_only: bool = False) -> set[str]:
    """Names of the options that accept the value."""
    found = set()
    for name, option in OPTIONS.items():
        if floats_only and not option.is_float:
            continue
        try:
            check_config(option.at(value))
        except ValueError:
            continue
        found.add(name)
    return found


ZERO = {
    "AdapterConfig.columns",
    "AdapterConfig.gripper_threshold",
    "AdapterConfig.offset",
    "AdapterConfig.scale",
    "Console.seed",
    "DaggerConfig.beta",
    "DaggerConfig.beta_decay",
    "DemonstrationsConfig.first_seed",
    "DemonstrationsConfig.noise_correlation",
    "DemonstrationsConfig.noise_share",
    "DemonstrationsConfig.noise_std",
    "Drive.seed",
    "DriveConfig.blend_decay",
    "DriveConfig.correction",
    "Eval.videos",
    "EvaluationConfig.episodes_per_task",
    "EvaluationConfig.videos_per_task",
    "ImproveConfig.collapse_share",
    "ImproveConfig.seed",
    "InferenceConfig.max_wait_ms",
    "InferenceConfig.num_gpus",
    "LearnerConfig.ema_decay",
    "LearnerConfig.final_lr_share",
    "LearnerConfig.warmup_updates",
    "LearnerConfig.weight_decay",
    "ModelConfig.balancing_rate",
    "ModelConfig.history_length",
    "ModelConfig.image_queries",
    "ModelConfig.vision_blocks",
    "PPOConfig.discount",
    "PPOConfig.gae_lambda",
    "PPOConfig.warmup_iterations",
    "PageConfig.port",
    "PracticeConfig.focus",
    "ReadingConfig.held_out",
    "ShrinkPerturbConfig.keep",
    "ShrinkPerturbConfig.updates",
    "RunConfig.seed",
    "SFTConfig.foresight_weight",
    "SFTConfig.hand_pointing_weight",
    "SFTConfig.load_balancing_weight",
    "SFTConfig.localization_weight",
    "SFTConfig.pointing_weight",
    "SFTConfig.router_z_weight",
    "ServerConfig.max_wait_ms",
    "ServerConfig.port",
    "SurrogateConfig.reference_kl_weight",
    "SurrogateConfig.entropy_weight",
    "SurrogateConfig.min_log_scale",
    "SurrogateConfig.noise_correlation",
    "WorkersConfig.cpus_per_worker",
    "WorkersConfig.gpus_per_worker",
    "WorkersConfig.workers",
}
"""Of these 0 is a value."""


def test_every_option_that_is_a_number_is_found() -> None:
    assert len(OPTIONS) > 100
    assert {"LearnerConfig.learning_rate", "ModelConfig.chunk_size", "GridConfig.widths"} <= OPTIONS.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_numeric_option_must_be_finite(value: float) -> None:
    assert not accepted(value)


def test_every_numeric_option_has_bounds() -> None:
    assert not accepted(10**30)


def test_only_a_logarithm_and_an_adapters_factors_may_be_negative() -> None:
    factors = {f"AdapterConfig.{name}" for name in ("gripper_threshold", "offset", "scale")}
    assert accepted(-1) == {"SurrogateConfig.min_log_scale"} | factors


def test_only_these_may_be_0() -> None:
    assert accepted(0) == ZERO


def test_a_console_that_cannot_record_is_refused_before_it_starts() -> None:
    check_config(PageConfig(record=Path(__file__).parent / "drives"))
    for place in (Path(__file__), Path(__file__) / "drives"):
        with pytest.raises(
            ValueError, match=r"record is '.*', but .*\.py is no folder to write to; name another --rec"
        ):
            check_config(PageConfig(record=place))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "sft_tiny", "--seed", "-1"], "seed is -1"),
        (["train", "sft_tiny", "--learner.learning-rate", "nan"], "learner.learning-rate is nan"),
        (["train", "sft_tiny", "--model.chunk-size", "1000000000"], "model.chunk-size is 1000000000"),
        (["train", "sft_tiny", "--model.chunk-size", "1"], "n_action_steps must be within 1..1"),
        (["train", "sft_tiny", "--model.instruction-length", "0"], "model.instruction-length is 0"),
        (["train", "sft_tiny", "--evaluation.n-action-steps", "9"], "n_action_steps must be within 1..8"),
        (["train", "sft_tiny", "--evaluation.variations", "typo"], "variation 'typo' does not exist"),
        (["train", "sft_tiny", "--demonstrations.tasks", "raech"], "task 'raech' does not exist, did you mean"),
        (["train", "sft_tiny", "--demonstrations.world", "no_such:world"], "world 'no_such:world' cannot be imported"),
        (["train", "sft_tiny", "--demonstrations.world", "math:pi"], "world 'math:pi' is a float, expected a function"),
        (["train", "ppo_tabletop", "--collapse-share", "nan"], "collapse-share is nan"),
        (["collect", "tabletop", "--noise-share", "2"], "noise-share is 2"),
        (["collect", "tabletop", "--variation", "trian"], "variation 'trian' does not exist, did you mean 'train'"),
        (["eval", "expert", "--episodes", "0"], "episodes is 0"),
        (["eval", "expert", "--tasks", "reach", "reach"], "task 'reach' is named twice"),
        (["scale", "sft_tiny", "--hours", "nan"], "hours is nan"),
        (
            ["eval", "expert", "--workers", "1", "--ray-address", "127.0.0.1:1"],
            "no Ray cluster answers at 127.0.0.1:1: ",
        ),
        (["train", "sft_tiny", "--ray-address", "localhost:99999"], "no Ray cluster answers at localhost:99999: "),
        (["collect", "tabletop", "--ray-address", "head"], "ray-address is 'head', expected \"auto\" or HOST:PORT"),
        (["train", "sft_tiny", "--cache", f"{__file__}/x"], "test_option_table.py is no folder to write to"),
        (["train", "dagger_few", "--init", "x", "--cache", __file__], "test_option_table.py is no folder to write to"),
        (["eval", "expert", "--world", ""], "--world has an empty value"),
        (["eval", "expert", "--world="], "--world has an empty value"),
        (["eval", "", "--tasks", "reach"], "there is an empty value"),
    ],
)
def test_invalid_options_are_refused_in_one_line_and_write_nothing(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([*args, "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said in error
    assert error.startswith("llamarm: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["eval", "expert", "--out", ""], ["report", ""], ["compare", "", "runs"]])
def test_an_empty_path_is_not_the_current_folder(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(command)
    assert exit_.value.code == 2
    assert "an empty value; write one, or leave it out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
