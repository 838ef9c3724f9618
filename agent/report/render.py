"""The report of a run: one self-contained HTML file with embedded videos and pictures.

It is made from run.json, eval_info.json, videos and TensorBoard's events. A section whose data do not exist says so.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent.evaluation.compare import compare
from agent.evaluation.eval_info import read_eval_info
from agent.evaluation.open_loop import read_action_error
from agent.evaluation.videos import video_poster
from agent.report.curves import Curve, by_group, draw_curve, read_curves
from agent.report.error_tables import dimension_rows, plot_episode, task_rows
from agent.runs.run_folder import RunFolder
from envs.errors import UserError
from vla_model.files.folders import read_json, write_whole
from vla_model.files.old_names import with_new_names

VIDEO_LIMIT_MB = 16
"""Videos beyond this are listed, not embedded: mail servers and phones refuse larger pages."""


def write_report(root: Path) -> Path:
    """Write report.html into the folder of a run or of an evaluation; returns its path.

    Raises:
        UserError: the folder holds neither.
    """
    folder = RunFolder(root)
    if not any(file.exists() for file in (folder.record_file, folder.eval_info, folder.action_error)):
        raise UserError(
            f"{root} holds neither a run ({folder.record_file.name}) nor an evaluation ({folder.eval_info.name}); "
            "name the folder of a llamarm train or eval"
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["duration"] = _duration
    page = environment.get_template("report.html").render(_content(folder))
    write_whole(folder.report, page)
    return folder.report


def _content(folder: RunFolder) -> dict[str, Any]:
    """Variables of the template."""
    record = folder.record if folder.record_file.exists() else {"config": {}, "sessions": [], "phases": []}
    info = read_eval_info(folder.eval_info) if folder.eval_info.exists() else {}
    config = _flat(record["config"])
    sessions = record["sessions"]
    curves = by_group(read_curves(folder.tensorboard))
    return {
        "title": folder.root.resolve().name,
        **_success(info),
        **_comparison(folder, info),
        "overall": info.get("overall"),
        "protocol": info.get("protocol"),
        "groups": _groups(info),
        "failures": info.get("failures", {}),
        "controls": info.get("controls", {}),
        "control_rows": _control_rows(info),
        "average_rows": _average_rows(info),
        "curves": {group: [(curve, _picture(curve)) for curve in members] for group, members in curves.items()},
        **_videos(folder.root, info),
        "action_error": _action_error(folder),
        "usage": _usage(info),
        "ablations": _ablations(folder),
        "weights": {key: value for key, value in config.items() if "sft." in key and key.endswith("_weight")},
        "sessions": sessions,
        "phases": record["phases"],
        "config": config,
        "last": sessions[-1] if sessions else None,
        "commands": list(dict.fromkeys(shlex.join(session["command"]) for session in sessions)),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _action_error(folder: RunFolder) -> dict[str, Any] | None:
    """Errors of actions on recorded episodes, by dimension and task, and plots of some; None if there are none."""
    if not folder.action_error.exists():
        return None
    found = read_action_error(folder.action_error)
    plots = [(plot, plot_episode(plot, found["names"])) for plot in found["plots"]]
    return found | {"dimension_rows": dimension_rows(found), "task_rows": task_rows(found), "pictures": plots}


def _ablations(folder: RunFolder) -> list[Any]:
    if not folder.experts.exists():
        return []
    return read_json(folder.experts, ("ablations",), "make it again with llamarm experts")["ablations"]


def _picture(curve: Curve) -> str:
    return draw_curve(curve) if len(curve.steps) > 1 else ""


def _comparison(folder: RunFolder, info: dict[str, Any]) -> dict[str, Any]:
    """Comparison with the initial policy, of a fine-tuning run, and videos of episodes that changed."""
    empty: dict[str, Any] = {"comparison": None, "incomparable": None, "changes": {}}
    if not info or not folder.before.eval_info.exists():
        return empty
    try:
        comparison = compare(read_eval_info(folder.before.eval_info), info)
    except UserError as error:  # llamarm eval evaluated the run again, on other episodes
        return empty | {"incomparable": str(error)}
    remedy = "delete it: only the videos of what changed are lost"
    found = with_new_names(read_json(folder.changes, remedy=remedy)) if folder.changes.exists() else {}
    rows = {row["id"]: row for row in info["per_episode"]}
    videos = {kind: (folder.root / of["video"], rows[of["id"]]) for kind, of in found.items()}
    changes = {kind: _video(path, row) for kind, (path, row) in videos.items() if path.exists()}
    return empty | {"comparison": comparison, "changes": changes}


def _groups(info: dict[str, Any]) -> dict[str, Any]:
    """Success by variation, the training variation first."""
    return dict(sorted(info.get("per_group", {}).items(), key=lambda item: (not item[0].endswith("/train"), item[0])))


def _success(info: dict[str, Any]) -> dict[str, Any]:
    """Success of the headline variation (training's if evaluated), of its tasks, and of all tasks by variation."""
    groups = _groups(info)
    group = next(iter(groups), None)
    rows = {(row["task_group"], row["task"]): row for row in info.get("per_task", [])}
    tasks = [row for (of, _), row in rows.items() if of == group]
    names = sorted({task for _, task in rows})
    by_variation = {task: [rows.get((of, task), {}).get("pc_success") for of in groups] for task in names}
    return {
        "headline": groups.get(group),
        "headline_group": group,
        "tasks": tasks,
        "variation_rows": by_variation,
    }


def _control_rows(info: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per task, the policy's success before its controls'; the last for all episodes."""
    controls = list(info.get("controls", {}).values())
    if not controls:
        return []
    columns = [controls[0]["policy"], *controls]
    tasks = controls[0]["per_task"]
    rows = [{"task": task, "successes": [c["per_task"][task]["pc_success"] for c in columns]} for task in tasks]
    return [*rows, {"task": "all", "successes": [c["pc_success"] for c in columns]}]


def _average_rows(info: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per average of the headline's variation, with the controls'; none where the suite has no task groups."""
    headline = _success(info)["headline"]
    if headline is None or not info["protocol"]["task_groups"]:
        return []
    controls = list(info["controls"].values())
    return [
        average
        | {"name": name, "is_mean": name not in info["protocol"]["task_groups"]}
        | {"controls": [control["averages"][name]["pc_success"] for control in controls]}
        for name, average in headline["averages"].items()
    ]


def _videos(root: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Videos to embed, the first of every task before the second of any, and those left out or missing."""
    recorded = [row for row in info.get("per_episode", []) if row["video_path"] is not None]
    recorded_before: Counter[str] = Counter()
    turns = []
    for row in recorded:
        turns.append((recorded_before[row["task"]], row))
        recorded_before[row["task"]] += 1
    embedded, left_out, missing, used = [], [], [], 0
    for _, row in sorted(turns, key=lambda turn: turn[0]):
        path = root / row["video_path"]
        if not path.exists():
            missing.append(row["video_path"])
        elif used + path.stat().st_size > 1e6 * VIDEO_LIMIT_MB:
            left_out.append(row["video_path"])
        else:
            used += path.stat().st_size
            embedded.append(_video(path, row))
    limit = {"video_limit_mb": VIDEO_LIMIT_MB}
    return {"videos": embedded, "videos_left_out": left_out, "videos_missing": missing, **limit}


def _video(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": row["task"],
        "outcome": "success" if row["success"] else f"failed: {row['failure']}",
        "success": row["success"],
        "id": row["id"],
        "video": base64.b64encode(path.read_bytes()).decode(),
        "poster": base64.b64encode(video_poster(path)).decode(),
    }


def _usage(info: dict[str, Any]) -> list[dict[str, list[float]]]:
    """Per MoE layer: {task: share of each expert}."""
    usage = info.get("expert_usage", {})
    layers = len(next(iter(usage.values()))) if usage else 0
    return [{task: of_layers[layer] for task, of_layers in usage.items()} for layer in range(layers)]


def _duration(seconds: float) -> str:
    """3725.4 -> 1:02:05; below a minute, seconds with a tenth."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves of a JSON tree as text, with dotted names."""
    leaves = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return leaves
