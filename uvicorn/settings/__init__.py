"""Every option of the server, declared once, and where its value comes from.

    kinds.py    what a value may look like: parsing, checking, schema
    table.py    THE table: one entry for each option
    layers.py   pure: several layers of raw values -> one set of checked values with provenance, or all errors
    sources.py  raw layers: a YAML file with line numbers, the environment
    derived.py  made from the table: click options, JSON Schema, the settings page, the effective-settings listing

Nothing in here starts, binds or imports an application.
"""
