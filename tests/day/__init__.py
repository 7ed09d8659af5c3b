"""A day in the life of a service, under load: `make day`."""
