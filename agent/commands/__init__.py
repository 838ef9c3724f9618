"""The commands of `llamarm`, one file each, and the options that they share.

In come options as typed; out go a checked config and a call of what the command does.
"""
