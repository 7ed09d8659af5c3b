"""System calls of the master that fail on purpose: see __main__.py."""
