"""LeRobotDatasets of other programs, which have no WorldSpec.

Input: info.json and recorded vectors. Output: which features a policy can use, and a WorldSpec with its conversion.
"""
