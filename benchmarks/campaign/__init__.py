"""A reliability campaign: what is lost, comes twice or is wrong when workers, drivers, disks and clients misbehave."""
