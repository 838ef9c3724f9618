"""The commands of `llamarm`, one file each, and the options that they share.

A command's file has its options, a frozen dataclass of the command's name, and `run(args)`, which reads them from what
follows the name on the command line and does the work. All imports are at the top: the file is imported only when its
command is asked for.
"""
