"""Raw layers: the environment; and what the settings name outside of themselves. The other layer is in yaml_file.py.

What is read here is only located, not checked: layers.py says whether a value will do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from uvicorn._compat import HAS_SUBREAPER
from uvicorn.settings.layers import Layer, Problem, Raw, Resolved, SettingsError
from uvicorn.settings.table import APP, OPTIONS

# An environment has room for little more (execve(2)), and the master that reads it has a signal to answer.
MAX_ENV_FILE_SIZE = 262_144

# How like a setting's variable a name has to be: one letter more, less, or in another place. Names of other programs with our
# prefix are not.
_NEAR = 0.9


def from_environ(environ: Mapping[str, str]) -> Layer:
    """The layer of `UVICORN_*` and of the options' other variables; an empty variable counts as not set."""
    layer: dict[str, Raw] = {}
    for option in (APP, *OPTIONS):
        for variable in (option.env_name, *option.env):
            text = environ.get(variable)
            if text:
                layer[option.name] = Raw(text, f"${variable}", is_text=True)
                break
    return layer


def misspelt(environ: Mapping[str, str]) -> list[Problem]:
    """Variables that look like a setting's, and are none: the program ignores them, as it must those of others."""
    known = {option.env_name for option in (APP, *OPTIONS)}
    strangers = [name for name in environ if name.startswith("UVICORN_") and name not in known]
    if not strangers:
        return []
    import difflib  # noqa: PLC0415 - for mistakes only

    problems = []
    for name in sorted(strangers):
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_NEAR)
        if near:
            problems.append(
                Problem(f"${name}", "", f"is no setting, and is ignored; did you mean {near[0]}?")
            )
    return problems


def env_file_text(path: str | os.PathLike[str]) -> str:
    """The text of an environment file; "" where there is none, as `load_dotenv` has it.

    Raises:
        SettingsError: There is something that cannot be one.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_ENV_FILE_SIZE + 1)
        if len(content) > MAX_ENV_FILE_SIZE:
            raise ValueError(f"is larger than {MAX_ENV_FILE_SIZE} bytes")
        return content.decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        why = f"is not UTF-8: {exc.reason} at byte {exc.start}"
    except OSError as exc:
        why = f"cannot be read: {exc.strerror or exc}"
    except ValueError as exc:
        why = str(exc)
    raise SettingsError([Problem(os.fspath(path), "", f"{why}.")])


def unsupported(resolved: Resolved) -> list[Problem]:
    """What this system cannot do."""
    if resolved.values["preload"] and not HAS_SUBREAPER:
        message = (
            "needs Linux: no other system lets the master adopt workers that another process has forked."
        )
        return [Problem(resolved.places["preload"], "preload", message)]
    return []


def missing_files(resolved: Resolved) -> list[Problem]:
    """The files and directories that the settings name and that are not there, or cannot be read."""
    problems = []
    for name in ("env_file", "log_config", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs"):
        path = resolved.values[name]
        if not isinstance(path, (str, os.PathLike)):
            continue
        if not os.path.isfile(path):
            problems.append(Problem(resolved.places[name], name, f"Path '{os.fspath(path)}' does not exist."))
        elif not os.access(path, os.R_OK):
            problems.append(
                Problem(resolved.places[name], name, f"Path '{os.fspath(path)}' is not readable.")
            )
    for path in resolved.values["reload_dirs"] or ():
        if not os.path.exists(path):
            problem = Problem(resolved.places["reload_dirs"], "reload_dirs", f"Path '{path}' does not exist.")
            problems.append(problem)
    return problems
