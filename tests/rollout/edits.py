"""Changing a written dataset in place, as a user does or a disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


def change_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = root / "meta/info.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def replace_columns(file: Path, **columns: Any) -> None:
    table = pq.read_table(file)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, file)


def add_column(root: Path, key: str, dtype: str, values: Callable[[int, int], Any], kind: pa.DataType) -> None:
    """Add a feature of one number to every data file; its value is that of an episode and a frame."""
    change_info(root, lambda info: info["features"].update({key: {"dtype": dtype, "shape": [1], "names": None}}))
    for file in sorted((root / "data").glob("*/*.parquet")):
        table = pq.read_table(file)
        at = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        pq.write_table(table.append_column(key, pa.array([values(*place) for place in at], kind)), file)


def actions_of(file: Path, change: Callable[[NDArray[Any]], None]) -> None:
    """Change a data file's actions in place."""
    table = pq.read_table(file)
    actions = np.array(table["action"].to_pylist(), np.float32)
    change(actions)
    column = pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), 3)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", column), file)


DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
PROJECTION = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
