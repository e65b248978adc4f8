"""The machine: devices, processes and signals."""
