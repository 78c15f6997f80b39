"""What the archive does; knows only the ports."""
