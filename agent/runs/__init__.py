"""Shared by all runs: the run's folder and lock, config checks, seeds, progress bars, interrupts.

Input: a config. Output: a folder that can be resumed, or an error before any work begins.
"""
