"""The control process: what runs inside, for people and machines, and their commands to the master.

    view.py      pure: from the master's snapshot and the scoreboard to what is shown
    master.py    what the master says, and asking it for something
    memory.py    what workers have of the machine's memory
    app.py       the ASGI application: status, probes, metrics, page, commands
    metrics.py   Prometheus
    accept.py    who may connect to the control socket
    process.py   the process itself: signals, title, our own Server, the end
    client.py    the other end of the control socket
    cli.py       the `uvicornctl` command
    tables.py    pure: status as text for a terminal

It imports neither worker nor supervisor and is imported by neither; `uvicorn.compose` puts them together.
"""
