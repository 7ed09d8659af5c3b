"""Stand-ins for what the project does not own: transports, event loops, operating systems."""
