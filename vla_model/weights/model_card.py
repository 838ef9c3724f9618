"""README.md of a policy's folder: a model card that the Hugging Face Hub reads, written with every policy.

Its metadata name the library, the pipeline, the datasets and, after an evaluation, the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import safe_open

from envs.types import VectorSpec
from vla_model.config import VLAConfig
from vla_model.files.folders import write_whole
from vla_model.inputs.processor import Processor

CARD_FILE = "README.md"
_OURS = "<!-- Written by llamarm, which writes it anew after an evaluation as long as this line is here. -->"
_LIBRARY = "llamarm"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Success in percent, with its 95 % interval."""

    name: str
    percent: float
    interval: tuple[float, float]
    episodes: int | None = None
    """None for an average of rates."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """An evaluation as the card states it."""

    dataset: str
    """What was evaluated on, e.g. "tabletop/train"."""
    protocol: str
    """A sentence: seeds, actions executed of each chunk, step limit, interval."""
    overall: Rate
    rows: tuple[Rate, ...]
    """Averages, tasks and blind controls."""


def model_card(config: VLAConfig, processor: Processor, num_parameters: int, results: Results | None = None) -> str:
    """The card's text: metadata, what the policy sees and does, how to use it, and its results."""
    made_for = processor.deployment
    world = None if made_for is None else made_for.world
    return "\n".join(
        [
            "---",
            _metadata(world, results),
            "---",
            "",
            _OURS,
            "",
            f"# A vision-language-action policy{f' for {world}' if world else ''}",
            "",
            _sentence(config, num_parameters),
            "",
            *_facts(config, processor),
            "",
            "```",
            "llamarm eval FOLDER --out results    # success with intervals, in the world that it was trained for",
            "llamarm serve FOLDER                 # a server of openpi's and vla-eval's protocols",
            "llamarm drive FOLDER                 # a robot, simulated or real",
            "```",
            *_results(results),
            "",
        ]
    )


def write_card(folder: Path, config: VLAConfig, processor: Processor, results: Results) -> None:
    """Write the results into a saved policy's card, unless it has one of another's."""
    card = folder / CARD_FILE
    if card.exists() and _OURS not in card.read_text(encoding="utf-8"):
        return
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        count = sum(_size(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118, no mapping
    write_whole(card, model_card(config, processor, count, results))


def _sentence(config: VLAConfig, num_parameters: int) -> str:
    return (
        f"{num_parameters / 1e6:.1f} M parameters, saved by llamarm {version(_LIBRARY)}. From camera frames, the state "
        f"and an instruction it predicts {config.chunk_size} actions at a time."
    )


def _size(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def _metadata(world: str | None, results: Results | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found: dict[str, Any] = {}
    if results is not None:
        rates = [results.overall, *(rate for rate in results.rows if rate.episodes is None)]
        found["model_name"] = f"llamarm {world or 'policy'}"
        found["eval_results"] = [
            EvalResult(
                task_type="robotics",
                dataset_type=results.dataset.partition("/")[0],
                dataset_name=results.dataset,
                metric_type="success_rate",
                metric_name=f"success rate in %, {rate.name}",
                metric_value=round(rate.percent, 1),
            )
            for rate in rates
        ]
    data = ModelCardData(
        library_name=_LIBRARY,
        pipeline_tag="robotics",
        tags=["robotics", "vision-language-action", _LIBRARY],
        datasets=None if world is None else [world],
        **found,
    )
    return data.to_yaml()


def _facts(config: VLAConfig, processor: Processor) -> Iterator[str]:
    made_for, spec = processor.deployment, processor.world_spec
    yield "| | |"
    yield "|---|---|"
    if made_for is not None:
        yield f"| actions executed per decision | {made_for.n_action_steps} of {config.chunk_size} |"
        if made_for.world is not None:
            yield f"| world | {made_for.world}: {', '.join(made_for.tasks) or 'all its tasks'} |"
    yield f"| control rate | {1 / spec.control_dt_s:g} Hz |"
    for camera in spec.cameras:
        yield f"| camera `{camera.name}` | {camera.height} x {camera.width} pixels, RGB |"
    yield f"| state | {_elements(spec.state)} |"
    yield f"| action, each in [-1, 1] | {_elements(spec.action)} |"
    yield f"| instruction | at most {processor.instruction_length} tokens |"


def _elements(vector: VectorSpec) -> str:
    return ", ".join(f"{name} ({unit})" for name, unit in zip(vector.names, vector.units, strict=True))


def _results(results: Results | None) -> Iterator[str]:
    if results is None:
        return
    yield ""
    yield "## Results"
    yield ""
    yield results.protocol
    yield ""
    yield f"| {results.dataset} | episodes | success | 95 % interval |"
    yield "|---|---|---|---|"
    for rate in (results.overall, *results.rows):
        low, high = rate.interval
        episodes = "" if rate.episodes is None else f"{rate.episodes}"
        yield f"| {rate.name} | {episodes} | {rate.percent:.1f} % | {low:.1f} to {high:.1f} % |"
