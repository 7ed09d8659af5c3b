"""Between master and worker: shared memory, a message channel, and what a worker is started with.

    scoreboard.py   one fixed-layout row of integers for each worker; health never travels any other way
    channel.py      small typed messages from worker to master; its end of file says that the other side is gone
    start.py        what a worker gets from its master
    mold.py         requests to fork from the master to a mold, and what has come of them
    control.py      commands from the control process to the master; snapshots and answers back

Both sides import this; neither imports the other. No pickles, no text to parse but a report for people.
"""
