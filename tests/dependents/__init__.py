"""Other projects' own test suites, run against uvicorn 0.37.0 and against this tree. No part of `make test`."""
