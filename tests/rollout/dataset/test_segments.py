"""What of a dataset is taught, and with which instruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edits import DATA, EPISODES, replace_columns
from test_batches import write

from rollout.dataset.batches import TrainingData


def test_each_row_has_the_instruction_of_its_own_task(tmp_path: Path) -> None:
    write(tmp_path / "a", [4])  # 7 rows
    replace_columns(tmp_path / "a" / EPISODES, tasks=[["reach", "lift"]])
    replace_columns(tmp_path / "a" / DATA, task_index=[0] * 3 + [1] * 4)
    with pytest.raises(ValueError, match=r"episode 0 of .*a has the tasks \['reach', 'lift'\], but its frames from 0"):
        TrainingData([tmp_path / "a"])
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["reach", "lift"]}), tmp_path / "a/meta/tasks.parquet")
    data = TrainingData([tmp_path / "a"])
    batch = data.gather(np.arange(7), 3, history=(1, 1))
    assert [data.instructions[i] for i in batch.instruction_id] == ["reach"] * 3 + ["lift"] * 4
    assert batch.state[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert batch.mask.sum(1).tolist() == [3, 2, 1, 3, 3, 2, 1], "what follows is another task's"
    assert batch.past_state is not None
    assert batch.past_state[:, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5], "what was seen before is still remembered"
    replace_columns(tmp_path / "a" / DATA, task_index=[0] * 3 + [2] * 4)
    with pytest.raises(ValueError, match=r"from 3 on are of task 2, which meta/tasks.parquet does not have"):
        TrainingData([tmp_path / "a"])


def test_a_table_of_tasks_as_pandas_writes_it_is_read(tmp_path: Path) -> None:
    """LeRobot's has an index without a name, for which pandas makes up one."""
    write(tmp_path / "a", [4])
    table = pa.table({"task_index": [0], "__index_level_0__": ["lift"]})
    pq.write_table(table, tmp_path / "a/meta/tasks.parquet")
    replace_columns(tmp_path / "a" / EPISODES, tasks=[["lift"]])
    assert TrainingData([tmp_path / "a"]).instructions == ["lift"]
