"""The services: protocol in, call of the archive, protocol out. They do not know each other."""
