"""`python -m envs.simulation.warp_devices` prints MuJoCo Warp's version and the devices that it can run on."""

from __future__ import annotations

from importlib.metadata import version

import warp

if __name__ == "__main__":
    warp.config.log_level = warp.LOG_WARNING
    warp.init()
    devices = ", ".join(f"{device.alias} ({device.name})" for device in warp.get_devices())
    print(f"{version('mujoco-warp')} on {devices}")
