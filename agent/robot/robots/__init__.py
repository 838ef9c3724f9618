"""Robots: what the control loop drives. Any World in real time, and any LeRobot robot."""
