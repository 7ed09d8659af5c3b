"""The manifests in deploy/kubernetes: against the published schemas, against each other, and against the server."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.e2e.harness import PATIENCE, ROOT, Service
from uvicorn.settings import kinds

DIRECTORY = ROOT / "deploy" / "kubernetes"
# The oldest version that is still cared for upstream at the time of writing, and the newest that the package knows.
VERSIONS = ("1.32", kubernetes_validate.latest_version())
# What a worker that does not end costs after all its deadlines: 2 s more to leave, 2 s from SIGABRT to SIGKILL, and 3 s
# for the log and the master's own end.
ABORT = 7.0

KUSTOMIZATION = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    yaml.safe_load((DIRECTORY / name).read_text()) for name in KUSTOMIZATION["resources"]
]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (each for each in MANIFESTS if each["kind"] == kind)
    return found


DEPLOYMENT = manifest("Deployment")["spec"]
POD = DEPLOYMENT["template"]["spec"]
CONTAINER = POD["containers"][0]
SETTINGS = yaml.safe_load((DIRECTORY / "uvicorn.yaml").read_text())
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def seconds(name: str) -> float:
    return float(kinds.Duration().parse(SETTINGS[name]))


def size(text: str) -> int:
    """A quantity of memory, as Kubernetes writes it."""
    return int(kinds.Size().parse(text.removesuffix("i")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [each["kind"] for each in MANIFESTS])
def test_the_published_schema_has_nothing_against_it(kind: str, version: str) -> None:
    kubernetes_validate.validate(manifest(kind), version, strict=True)


def test_the_schema_would_have_something_against_a_mistake() -> None:
    wrong = {**manifest("Service"), "spec": {**manifest("Service")["spec"], "targetport": "http"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_kustomize_makes_of_them_is_valid(version: str) -> None:
    command = ["kubectl", "kustomize", str(DIRECTORY)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = {each["kind"]: each for each in yaml.safe_load_all(output)}
    assert set(made) == {each["kind"] for each in MANIFESTS} | {"ConfigMap"}
    for each in made.values():
        kubernetes_validate.validate(each, version, strict=True)
    pods = made["Deployment"]["spec"]["template"]
    assert pods["spec"]["volumes"][0]["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    assert yaml.safe_load(made["ConfigMap"]["data"]["uvicorn.yaml"]) == SETTINGS


def test_the_kustomization_names_every_file_once() -> None:
    files = {path.name for path in DIRECTORY.iterdir()} - {"README.md", "kustomization.yaml"}
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    assert sorted([*KUSTOMIZATION["resources"], *generator["files"]]) == sorted(files)


# --- the values, against each other ---------------------------------------------------------------


def test_a_pod_is_not_killed_while_it_drains() -> None:
    needed = sum(map(seconds, ("shutdown_delay", "timeout_graceful_shutdown", "timeout_lifespan_shutdown")))
    assert POD["terminationGracePeriodSeconds"] >= needed + ABORT


def test_readiness_is_seen_to_be_off_within_the_shutdown_delay() -> None:
    probe = CONTAINER["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert noticed < seconds("shutdown_delay")


def test_a_slow_start_is_ended_by_the_master_that_can_say_why() -> None:
    probe = CONTAINER["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > seconds("timeout_worker_startup")


def test_every_selector_selects_the_pods() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    selectors = [manifest("Service")["spec"]["selector"]]
    selectors += [
        manifest(kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")
    ]
    selectors += [each["labelSelector"]["matchLabels"] for each in POD["topologySpreadConstraints"]]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_ports_and_names_agree() -> None:
    assert SETTINGS["bind"].endswith(f":{PORTS['http']}")
    assert SETTINGS["admin"].endswith(f":{PORTS['admin']}")
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {"admin"}
    assert [port["targetPort"] for port in manifest("Service")["spec"]["ports"]] == ["http"]
    annotations = DEPLOYMENT["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["admin"])
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifest("Deployment")["metadata"]["name"])
    assert {each["metadata"]["name"] for each in MANIFESTS} == {target["name"]}
    (image,) = KUSTOMIZATION["images"]
    assert image["name"] == CONTAINER["image"]


def test_memory_is_enough_for_the_workers_that_the_limits_allow() -> None:
    limit = size(CONTAINER["resources"]["limits"]["memory"])
    worker = size(SETTINGS["limit_worker_memory"])
    # One more while a worker is replaced; 100 MB for the master and the control process.
    assert (SETTINGS["workers"] + 1) * worker + (100 << 20) <= limit


def test_what_is_written_has_a_place_and_the_rest_cannot_be() -> None:
    mounts = {each["mountPath"]: each for each in CONTAINER["volumeMounts"]}
    writable = [path for path, each in mounts.items() if not each.get("readOnly")]
    assert writable == [str(Path(SETTINGS["control_socket"]).parent)]
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert all(int(address.rpartition(":")[2]) >= 1024 for address in (SETTINGS["bind"], SETTINGS["admin"]))
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == tuple(
        map(int, user.groups())
    )
    assert POD["securityContext"]["runAsNonRoot"]


def test_no_service_can_set_a_variable_of_ours() -> None:
    assert POD["enableServiceLinks"] is False


# --- the values, against the server ----------------------------------------------------------------


@pytest.mark.e2e
def test_the_server_starts_from_it_and_answers_every_probe(tmp_path: Path) -> None:
    text = (DIRECTORY / "uvicorn.yaml").read_text()
    for name in ("bind", "admin"):
        text = text.replace(SETTINGS[name], "127.0.0.1:0")
    (tmp_path / "uvicorn.yaml").write_text(
        text.replace("/tmp/uvicorn.sock", f"{tmp_path}/s").replace("/app", str(tmp_path))
    )
    with Service(tmp_path, "--config", "uvicorn.yaml", app="") as service:
        service.wait_ready(SETTINGS["workers"])
        admin = int(service.wait_log(r"answers on .*http://127\.0\.0\.1:(\d+)")[1])

        def asked_for(path: str) -> tuple[int, bytes]:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read()

        for probe in PROBES:
            assert asked_for(CONTAINER[probe]["httpGet"]["path"])[0] == 200
        annotations = DEPLOYMENT["template"]["metadata"]["annotations"]
        assert b"uvicorn_workers" in asked_for(annotations["prometheus.io/path"])[1]
        assert service.request("/").status == 200
        service.stop()
