"""More data or more parameters: the command `llamarm scale`."""
