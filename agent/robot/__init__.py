"""Real-time robot control: a policy, a control loop at a fixed rate, and a safety filter between them."""
