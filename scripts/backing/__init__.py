"""The services behind a distributed archive, as native processes on loopback.

For the tests and for `make cluster`; none of it is part of the archive.
"""
