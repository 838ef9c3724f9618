"""Robots: what the control loop drives. Any World, gymnasium environment or LeRobot robot."""
