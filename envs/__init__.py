"""The worlds: simulated tables, cameras and tasks that an instruction decides."""
