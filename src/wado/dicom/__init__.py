"""The Standard as pure functions: bytes and values in, values out; no files, no network."""
