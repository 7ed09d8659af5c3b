"""Real processes, real sockets, real signals. Every test waits on conditions and leaves nothing behind."""
