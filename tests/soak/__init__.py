"""Clients of every kind and disturbances of every kind, for minutes: nothing may be wrong, lost or left over."""
