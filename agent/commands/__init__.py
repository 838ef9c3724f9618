"""The commands of `llamarm`, one file each, and the options that they share.

A command's file has its options, a frozen dataclass, and `run(args)`, which parses the arguments after the command's
name and does the work. Imports stand at the top: a command's file is imported only when that command runs.
"""
