"""What every run needs, whatever it does: its folder and lock, config checks, progress bars, interrupts.

In comes a config; out go a folder that can be resumed, and refusals before any work begins.
"""
