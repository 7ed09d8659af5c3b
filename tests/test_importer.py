"""The importer: import strings, whose traceback is whose, and which modules belong to the application."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from uvicorn import importer
from uvicorn.importer import (
    ImportFromStringError,
    forget_application_modules,
    import_from_string,
    own_traceback,
)

pytestmark = pytest.mark.usefixtures("process_state")

PACKAGE = Path(importer.__file__).parent


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.syspath_prepend(tmp_path)

    def write_file(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write_file


# --- import strings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [("json:dumps", json.dumps), ("os:path.join", os.path.join), ("os.path:join", os.path.join)],
)
def test_import_string_names_an_object(text: str, found: object) -> None:
    assert import_from_string(text) is found


@pytest.mark.parametrize("value", [None, 3, len, ["json:dumps"]])
def test_what_is_no_string_is_returned_unchanged(value: object) -> None:
    assert import_from_string(value) is value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("json", 'Import string "json" must be in format "<module>:<attribute>".'),
        ("json:", 'Import string "json:" must be in format "<module>:<attribute>".'),
        (".json:dumps", 'Import string ".json:dumps" must be in format "<module>:<attribute>".'),
        (":dumps", 'Import string ":dumps" must be in format "<module>:<attribute>".'),
        ("", 'Import string "" must be in format "<module>:<attribute>".'),
        ("no_such_module:x", 'Could not import module "no_such_module".'),
        ("json.no_such:x", 'Could not import module "json.no_such".'),
        ("json:nothing", 'Attribute "nothing" not found in module "json".'),
        ("os:path.nothing", 'Attribute "path.nothing" not found in module "os".'),
        ("os:path:join", 'Attribute "path:join" not found in module "os".'),
    ],
)
def test_import_string_that_names_nothing_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ImportFromStringError) as caught:
        import_from_string(text)
    assert str(caught.value) == message


def test_missing_parent_package_is_not_the_import_strings_fault() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        import_from_string("no.such:app")
    assert caught.value.name == "no"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import no_such_dependency", ModuleNotFoundError),
        ("from os import nope", ImportError),
        ("1/0", ArithmeticError),
    ],
)
def test_failure_inside_the_module_passes_through(
    text: str, error: type[Exception], write: Callable[[str, str], None]
) -> None:
    write("failing_app.py", text)
    with pytest.raises(error):
        import_from_string("failing_app:app")


# --- tracebacks ------------------------------------------------------------------------------------


def files_of(exc: BaseException) -> list[str]:
    """The file names of the frames that are shown."""
    files = []
    tb = own_traceback(exc)
    while tb is not None:
        files.append(Path(tb.tb_frame.f_code.co_filename).name)
        tb = tb.tb_next
    return files


def raised(filename: str, inner: Callable[[], Any] | None = None) -> Callable[[], Any]:
    """A function that seems to stand in this file; it calls `inner`, or raises."""
    code = compile("def f():\n    return inner() if inner else 1 / 0\n", filename, "exec")
    namespace: dict[str, Any] = {"inner": inner}
    exec(code, namespace)
    return namespace["f"]  # type: ignore[no-any-return]


def failure(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(ZeroDivisionError) as caught:
        function()
    return without_first_frame(caught.value)


def without_first_frame(exc: BaseException) -> BaseException:
    """The frame of the test itself is nobody's machinery."""
    assert exc.__traceback__ is not None
    return exc.with_traceback(exc.__traceback__.tb_next)


MACHINERY = [
    str(PACKAGE / "config.py"),
    "<frozen importlib._bootstrap>",
    "uvloop/loop.pyx",
    json.__file__,
    click.__file__,
    "/venv/lib/site-packages/click/core.py",
    "/usr/lib/python3/dist-packages/click/core.py",
]


@pytest.mark.parametrize("filename", MACHINERY)
def test_frames_of_the_machinery_above_the_application_are_left_out(filename: str) -> None:
    exc = failure(raised(filename, raised(filename, raised("/srv/app.py"))))
    assert files_of(exc) == ["app.py"]


@pytest.mark.parametrize("filename", MACHINERY)
def test_frames_below_the_applications_first_line_stay(filename: str) -> None:
    exc = failure(raised("/srv/app.py", raised(filename)))
    assert files_of(exc) == ["app.py", Path(filename).name]


def test_frames_of_installed_packages_are_the_applications() -> None:
    exc = failure(raised(str(PACKAGE / "config.py"), raised("/venv/lib/site-packages/framework/x.py")))
    assert files_of(exc) == ["x.py"]


@pytest.mark.parametrize("filename", [f"{PACKAGE}_demo.py", f"{PACKAGE}-site/app.py"])
def test_application_beside_the_package_is_not_machinery(filename: str) -> None:
    exc = failure(raised(json.__file__, raised(filename)))
    assert files_of(exc) == [Path(filename).name]


def test_failure_without_a_frame_of_the_application_has_no_traceback() -> None:
    assert own_traceback(failure(raised(json.__file__))) is None


def test_traceback_of_a_failed_import_starts_in_the_application(write: Callable[[str, str], None]) -> None:
    write("failing_app.py", "import failing_part\n")
    write("failing_part.py", "import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError) as caught:
        import_from_string("failing_app:app")
    assert files_of(without_first_frame(caught.value))[0] == "failing_app.py"


# --- modules ---------------------------------------------------------------------------------------


def test_modules_of_the_application_are_forgotten_and_all_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = sysconfig.get_paths()
    kept = {
        "uvicorn.config": str(PACKAGE / "config.py"),
        "json": json.__file__,
        "http": f"{paths['stdlib']}/http/__init__.py",
        "_ctypes": f"{sysconfig.get_config_var('DESTSHARED')}/_ctypes.so",
        "installed": f"{paths['purelib']}/installed.py",
        "elsewhere": "/other/site-packages/elsewhere.py",
        "debian": "/usr/lib/python3/dist-packages/debian.py",
        "builtin": None,
        "__main__": "/srv/run.py",
        "__mp_main__": "/srv/run.py",
    }
    own = {
        "app": "/srv/app.py",
        "app.views": "/srv/app/views.py",
        "uvicorn_demo": f"{PACKAGE}_demo.py",
    }
    modules = {}
    for name, filename in {**kept, **own}.items():
        modules[name] = types.ModuleType(name)
        if filename is not None:
            modules[name].__file__ = filename
    with monkeypatch.context() as patched:
        patched.setattr(sys, "modules", modules)
        forgotten = forget_application_modules()
    assert forgotten == list(own)
    assert set(modules) == set(kept)
