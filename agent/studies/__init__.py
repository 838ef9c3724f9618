"""Studies of many evaluations or runs: what each expert of a mixture does, and what larger models would bring."""
