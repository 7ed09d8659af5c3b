"""`python -m uvicorn.settings`: write what is derived from the table again; with --check, say whether that is due."""

import sys

from uvicorn.settings.derived import write_or_check

if __name__ == "__main__":
    sys.exit(write_or_check(sys.argv[1:]))
