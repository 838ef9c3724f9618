"""Two Ray nodes on one machine: workers spread over them, and a node that dies takes no episode along."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from fake_world import fake_spec

CODE = """
import json, sys, time
from functools import partial
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from fake_world import CountingPolicy, FakeWorld, fake_spec
from rollout.workers.workers import Workers, WorkersConfig

folder = Path(sys.argv[1])

class LocalPolicy(CountingPolicy):
    '''Its version is the node that it acts on. It first acts when the other node's is there too.'''

    def act(self, worlds, observation):
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        time.sleep(0.02)
        return super().act(worlds, observation)

def make_policy(world):
    node = ray.get_runtime_context().get_node_id()[:8]
    (folder / node).touch()
    return LocalPolicy(1, version=int(node, 16))

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
config = WorkersConfig(workers=2, ray_address=cluster.address)
seeds, nodes = [], []
with Workers(partial(FakeWorld, 2), make_policy, config) as workers:
    for trajectory in workers.collect([fake_spec(s) for s in range(120)]):
        seeds.append(trajectory.spec.seed)
        nodes.append(trajectory.policy_version)
        if second is not None and len(set(nodes)) == 2:
            cluster.remove_node(second, allow_graceful=False)
            second = None
causes = [death.cause for death in workers.report.deaths]
Path(sys.argv[2]).write_text(json.dumps({"seeds": seeds, "nodes": nodes, "causes": causes}))
ray.shutdown()
cluster.shutdown()
"""


def test_workers_spread_over_two_nodes_and_losing_one_loses_no_episode(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    (tmp_path / "nodes").mkdir()
    command = [sys.executable, "-c", CODE, str(tmp_path / "nodes"), str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(found["seeds"]) == [fake_spec(s).seed for s in range(120)]
    assert len(set(found["nodes"])) == 2
    assert len(set(found["nodes"][-20:])) == 1, "one node is left at the end"
    assert found["causes"] and set(found["causes"]) <= {"node", "killed"}
