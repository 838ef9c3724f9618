"""A reliability campaign: lost, duplicated and wrong results under failures of workers, drivers, disks and clients."""
