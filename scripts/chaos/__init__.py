"""The chaos run: senders at work while members of a cluster die; then everything is counted.

`make chaos` runs it; `tests/fault/test_chaos.py` runs a short one. docs/reliability.md explains.
"""
