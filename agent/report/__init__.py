"""A run as one HTML page, and tables on the screen.

In comes a run's folder; out goes report.html.
"""
