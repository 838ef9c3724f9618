"""Settings of the page; importing this loads neither viser nor a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from vla_model.files.folders import check_place


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """The page's address, and the settings of its drives."""

    host: str = "127.0.0.1"
    """Address to listen on. There is no authentication: everyone who reaches it can drive."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8080
    """The next free one if it is in use; 0 for any."""
    seconds: Annotated[float, Interval(gt=0, le=86_400)] = 60.0
    """Time limit of a drive."""
    record: Path = Path("drives")
    """LeRobotDataset to which drives are appended, if "Record" is checked."""
    rate_hz: Annotated[float, Interval(gt=0, le=1_000)] = 30.0
    """Updates of the page per second, at most."""

    def check(self) -> None:
        """
        Raises:
            UserError: `record` cannot be a dataset's folder.
        """
        check_place("record", self.record)
