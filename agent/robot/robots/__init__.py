"""Robots for the control loop: any World in real time, any LeRobot robot, a module of the user's own."""
