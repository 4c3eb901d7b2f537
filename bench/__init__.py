"""Measurements of what we build beside the peers that do the same: `python -m bench [NAME]`."""
