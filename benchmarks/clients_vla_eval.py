"""Evaluate our worlds by vla-eval's own runner; see benchmarks/clients.py.

    python clients_vla_eval.py ws://127.0.0.1:8000/vla-eval OUTPUT_DIR WORLD EPISODES_PER_TASK TASK ...

The runner queries the policy at every step; the server decides how many steps of a chunk to execute.
"""

from __future__ import annotations

import sys

import vla_eval


def main(url: str, output_dir: str, world: str, episodes_per_task: str, *tasks: str) -> None:
    """Evaluate in this process, without Docker; vla-eval writes its files to output_dir."""
    config = {
        "render": "cpu",
        "benchmarks": [
            {
                "benchmark": "agent.serve.benchmark:Benchmark",
                "episodes_per_task": int(episodes_per_task),
                "params": {"world": world, "tasks": list(tasks)},
            }
        ],
    }
    vla_eval.run(config, server_url=url, output_dir=output_dir, docker=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
