"""Conformance to RFC 6455 and RFC 7692: the cases of the Autobahn testsuite, as tables, against the real server.

`python -m tests.autobahn` (or `make autobahn`) plays all of them against every implementation and prints a table; the
numbers are Autobahn's, so that its documentation explains them. `make test` plays the small ones. Cases 6.24, 6.25, 7.14,
7.15 and 13.8 are additions, on what the original leaves out.

    case.py                 what a case is
    framing.py utf8.py closing.py sizes.py    the tables
    client.py               plays a case
    verdict.py              says what is to be thought of it
    original.py             runs the original, where there is a Python 2.7 for it
"""
