"""Driving a robot: a policy, a control loop at a fixed rate, and a safety filter between the two."""
