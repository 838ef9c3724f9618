"""SIX_AXIS: an arm that is not the suite's own, with six joints of other names, lengths and limits, from MJCF."""

from __future__ import annotations

import mujoco

from envs.arm import ArmSpec, Joint

_MJCF = """
<mujoco>
  <compiler angle="radian"/>
  <default>
    <default class="arm">
      <joint type="hinge" axis="0 1 0" armature="0.1" damping="1"/>
      <geom type="capsule" contype="2" conaffinity="1" rgba="0.9 0.6 0.2 1"/>
      <default class="jaw">
        <joint type="slide" range="0 0.035" damping="10"/>
        <geom type="box" size="0.0125 0.005 0.015" contype="1" friction="1.5 0.02 0.001" condim="4" priority="1"
              solref="0.01 1" rgba="0.2 0.2 0.2 1"/>
      </default>
    </default>
  </default>
  <worldbody>
    <body name="six_pedestal" gravcomp="1" childclass="arm">
      <geom type="cylinder" size="0.07 0.05" pos="0 0 0.05" contype="0" conaffinity="0"/>
      <body name="column" pos="0 0 0.1" euler="0 0 -0.3" gravcomp="1">
        <joint name="six_waist" axis="0 0 1" range="-2.6 2.6"/>
        <geom fromto="0 0 0.05 0 0 0.25" size="0.05" mass="3"/>
        <body name="upper_arm" pos="0 0 0.25" gravcomp="1">
          <joint name="six_shoulder" range="-1.2 2.0"/>
          <geom fromto="0 0 0.06 0 0 0.42" size="0.045" mass="3"/>
          <body name="forearm" pos="0 0 0.42" gravcomp="1">
            <joint name="six_elbow" range="0.2 2.7"/>
            <geom fromto="0 0 0.06 0 0 0.34" size="0.04" mass="2"/>
            <body name="wrist_a" pos="0 0 0.40" gravcomp="1">
              <joint name="six_wrist_pitch" range="-1.5 2.4"/>
              <inertial pos="0 0 0" mass="0.5" diaginertia="0.002 0.002 0.002"/>
              <body name="wrist_b" gravcomp="1">
                <joint name="six_wrist_roll" axis="1 0 0" range="-1.5 1.5"/>
                <inertial pos="0 0 0" mass="0.5" diaginertia="0.002 0.002 0.002"/>
                <body name="palm" quat="0 0 0 1" gravcomp="1">
                  <joint name="six_wrist_yaw" axis="0 0 1" range="-2.4 2.4"/>
                  <geom type="box" size="0.02 0.08 0.025" pos="0 0 0.085" mass="0.6" contype="1"/>
                  <site name="tcp" pos="0 0 0.16"/>
                  <camera name="wrist" pos="0.07 0 0.08" xyaxes="0 1 0 1 0 0" fovy="80"/>
                  <body name="left" pos="0 0 0.115" gravcomp="1" childclass="jaw">
                    <joint name="six_left_jaw" axis="0 1 0"/>
                    <geom pos="0 0.005 0.0405" mass="0.02"/>
                  </body>
                  <body name="right" pos="0 0 0.115" gravcomp="1" childclass="jaw">
                    <joint name="six_right_jaw" axis="0 -1 0"/>
                    <geom pos="0 -0.005 0.0405" mass="0.02"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality><joint joint1="six_left_jaw" joint2="six_right_jaw" solref="0.005 1"/></equality>
  <actuator>
    <position name="six_waist" joint="six_waist" kp="4000" kv="160"/>
    <position name="six_shoulder" joint="six_shoulder" kp="4000" kv="160"/>
    <position name="six_elbow" joint="six_elbow" kp="3000" kv="120"/>
    <position name="six_wrist_pitch" joint="six_wrist_pitch" kp="2000" kv="80"/>
    <position name="six_wrist_roll" joint="six_wrist_roll" kp="2000" kv="80"/>
    <position name="six_wrist_yaw" joint="six_wrist_yaw" kp="2000" kv="80"/>
    <position name="six_left_jaw" joint="six_left_jaw" kp="1500" kv="40" forcerange="-30 30"/>
    <position name="six_right_jaw" joint="six_right_jaw" kp="1500" kv="40" forcerange="-30 30"/>
  </actuator>
</mujoco>
"""


def _model() -> mujoco.MjSpec:
    return mujoco.MjSpec.from_string(_MJCF)


def _joint(name: str, low_rad: float, high_rad: float, home_rad: float) -> Joint:
    return Joint(name=f"six_{name}", low_rad=low_rad, high_rad=high_rad, home_rad=home_rad, max_velocity_rad_s=3.0)


SIX_AXIS = ArmSpec(
    name="six_axis",
    model=_model,
    base_body="six_pedestal",
    joints=(
        _joint("waist", -2.6, 2.6, 0.3),
        _joint("shoulder", -1.2, 2.0, 0.4901),
        _joint("elbow", 0.2, 2.7, 1.9694),
        _joint("wrist_pitch", -1.5, 2.4, 0.6821),
        _joint("wrist_roll", -1.5, 1.5, 0.0),
        _joint("wrist_yaw", -2.4, 2.4, 0.0),
    ),
    fingers=("six_left_jaw", "six_right_jaw"),
    finger_travel_m=0.035,
    finger_half_m=0.0125,
    position_scale_m=0.03,
    rotation_scale_rad=0.15,
    workspace_low_m=(0.3, -0.28, 0.008),
    workspace_high_m=(0.68, 0.28, 0.4),
    reach_m=1.0,
    max_speed_m_s=1.0,
    max_acceleration_m_s2=10.0,
    max_turn_rad_s=2.0,
    max_turn_rad_s2=20.0,
)
