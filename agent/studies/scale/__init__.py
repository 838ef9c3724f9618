"""More data or more parameters: `llamarm scale`.

In comes a grid of sizes; out go its runs, a fitted law, tables and a picture.
"""
