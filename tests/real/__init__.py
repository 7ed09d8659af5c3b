"""The deployments as they are, on real systems: `make systemd-test`, `make image-test`.

Not part of `make test`: they need root, Debian's packages and minutes. Each prints a table, and says in words what is
missing where it cannot run.
"""
