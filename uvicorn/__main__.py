"""`python -m uvicorn`: the same command as the console script."""

from uvicorn.main import main

if __name__ == "__main__":
    main(prog_name="uvicorn")
