"""Looks at what a spec names: places, databases, models, connections, this machine. `doctor.examine` does it all."""
