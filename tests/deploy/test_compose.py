"""deploy/docker/compose.yaml: against the schema of compose files, and against what it puts together.

`make image-test` runs it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml

from tests.e2e.harness import ROOT
from uvicorn.settings import kinds

DIRECTORY = ROOT / "deploy" / "docker"
SCHEMA = json.loads(
    (resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text()
)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
    return loaded


def default(text: str) -> str:
    """What it is where no variable of it is set."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def test_the_published_schema_has_nothing_against_it() -> None:
    jsonschema.validate(compose(), SCHEMA)


def test_the_schema_would_have_something_against_a_mistake() -> None:
    wrong = compose()
    wrong["services"]["app"]["read_olny"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_what_it_names_is_there() -> None:
    for service in compose()["services"].values():
        if "build" in service:
            context = (DIRECTORY / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service["volumes"]:
            source, _, rights = default(volume).split(":")
            assert (DIRECTORY / source).resolve().exists()
            assert rights == "ro"


def test_the_application_is_where_nginx_has_found_it_also_after_a_restart() -> None:
    """nginx asks for the address once."""
    (network,) = compose()["services"]["app"]["networks"].items()
    name, settings = network
    (pool,) = compose()["networks"][name]["ipam"]["config"]
    assert ipaddress.ip_address(settings["ipv4_address"]) in ipaddress.ip_network(pool["subnet"])


def test_a_stop_waits_for_longer_than_the_drain() -> None:
    settings = yaml.safe_load((DIRECTORY / "uvicorn.yaml").read_text())
    names = ("shutdown_delay", "timeout_graceful_shutdown", "timeout_lifespan_shutdown")
    defaults = [str(settings[name]).split(":-")[-1].rstrip("}") for name in names]
    needed = sum(float(kinds.Duration().parse(text)) for text in defaults)
    patience = float(kinds.Duration().parse(compose()["services"]["app"]["stop_grace_period"]))
    # 4 s: what a worker that does not end gets before and after SIGABRT.
    assert patience >= needed + 4
    # Docker's own, where nothing is said.
    assert needed < 10


def test_nginx_asks_where_the_application_is() -> None:
    settings = yaml.safe_load((DIRECTORY / "uvicorn.yaml").read_text())
    port = settings["bind"].split(":-")[-1].rstrip("}")
    assert f"server app:{port};" in (DIRECTORY / "nginx.conf").read_text()
    assert "app" in compose()["services"]
