"""From "module:attribute" to the object, with errors that say which of the two is wrong.

Only the absence of the named module itself counts as a wrong import string. An ImportError that comes from inside
the module is the application's own and passes through untouched.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_PACKAGE = str(Path(__file__).parent) + os.sep
# Asked of a module: the usual paths may be links to where the modules are.
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
# Where its other modules are. What sysconfig says, without its 1 ms and 0.3 MB in each worker that asks.
_COMPILED_LIBRARY = os.path.join(
    sys.base_exec_prefix, sys.platlibdir, f"python{sys.version_info[0]}.{sys.version_info[1]}", ""
)

# What calls us, and what reads our files: in front of the application's first line they are not its own.
_OUR_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("click", "yaml"))


class ImportFromStringError(Exception):
    """The import string does not name anything; the text is for the person who wrote it."""


def import_from_string(import_str: Any) -> Any:
    """The object that `import_str` names.

    Args:
        import_str: "package.module:attribute.path"; anything that is no string is returned unchanged.

    Raises:
        ImportFromStringError: The form is wrong, the module is not there, or it lacks the attribute.
        Exception: Whatever the module raises while it is imported.
    """
    if not isinstance(import_str, str):
        return import_str

    module_name, _, attributes = import_str.partition(":")
    if not module_name or module_name.startswith(".") or not attributes:
        raise ImportFromStringError(f'Import string "{import_str}" must be in format "<module>:<attribute>".')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name != module_name:
            raise
        raise ImportFromStringError(f'Could not import module "{module_name}".') from None

    found: Any = module
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ImportFromStringError(
                f'Attribute "{attributes}" not found in module "{module_name}".'
            ) from None
    return found


def own_traceback(exc: BaseException) -> TracebackType | None:
    """The part of a traceback that belongs to the application.

    Leaves out the frames above the application's first line: ours, the standard library's and the command line's,
    which say nothing to the person whose module failed. A failure with no frame of the application (a SyntaxError,
    which shows the line by itself) has no traceback left.
    """
    tb = exc.__traceback__
    while tb is not None and _is_machinery(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def _is_machinery(filename: str) -> bool:
    # Compiled event loops show the path of their source.
    if filename.startswith("<frozen ") or filename.endswith(".pyx"):
        return True
    installed = "site-packages" in filename or "dist-packages" in filename
    if installed:
        return filename.startswith(_PACKAGE) or any(name in filename for name in _OUR_LIBRARIES)
    return filename.startswith((_PACKAGE, _STANDARD_LIBRARY))


def forget_application_modules() -> list[str]:
    """Drop the modules of the application from `sys.modules`; return their names.

    A worker that was forked from a process which had imported parts of the application (a script that calls
    `uvicorn.run("app:app", workers=4)`) would go on with those copies, and a reload would never see new code. The
    standard library, installed packages, this package and `__main__` stay.
    """
    kept = (_PACKAGE, _STANDARD_LIBRARY, _COMPILED_LIBRARY)
    forgotten = [name for name, module in list(sys.modules.items()) if _is_application(name, module, kept)]
    for name in forgotten:
        del sys.modules[name]
    return forgotten


def _is_application(name: str, module: Any, kept: tuple[str, ...]) -> bool:
    filename = getattr(module, "__file__", None)
    if filename is None or name in ("__main__", "__mp_main__"):
        return False
    if "site-packages" in filename or "dist-packages" in filename:
        return False
    return not filename.startswith(kept)
