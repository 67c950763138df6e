"""Checks the manifests of examples/sidecar: FOLDER. Against Kubernetes' published schemas, in which no unknown field passes, and for what
schemas do not say: rights, probes, and the time that each has to end. Mistakes are printed to stderr, with exit code 1."""

import copy
import pathlib
import re
import sys
import tomllib
import urllib.parse

import kubernetes_validate
import yaml

VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
POD = {
    "automountServiceAccountToken": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def seconds(span):
    return int(re.fullmatch(r"(\d+)s", span).group(1))


def port(listen):
    return int(listen.rsplit(":", 1)[1])


def schema_faults(document):
    faults = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"Kubernetes {version}: {document['kind']}: {error.message}")
    return faults


def pod_faults(pod, settings):
    faults = []

    def expect(holds, what):
        if not holds:
            faults.append(what)

    for name, value in POD.items():
        expect(pod.get(name) == value, f"{name} is {pod.get(name)}")
    sidecars, containers = pod.get("initContainers", []), pod["containers"]
    for container in sidecars + containers:
        expect(container.get("securityContext") == CONTAINER, f"{container['name']} has more rights than it needs")
        resources = container["resources"]
        expect("memory" in resources["limits"] and "cpu" in resources["requests"], f"{container['name']} has no resources")

    (kladder,) = [container for container in sidecars + containers if container["name"] == "kladder"]
    expect([p["containerPort"] for p in kladder["ports"] if p["name"] == "health"] == [port(settings["health"]["listen"])], "port")
    for probe, path in [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]:
        asked = kladder[probe]["httpGet"]
        expect(asked == {"path": path, "port": "health"}, f"{probe} asks {asked}")
    mounts = {mount["mountPath"]: mount for mount in kladder["volumeMounts"]}
    state = [item["value"] for item in kladder["env"] if item["name"] == "STATE_DIRECTORY"]
    expect(state and "readOnly" not in mounts.get(state[0], {"readOnly": True}), "the state has no place")
    expect(mounts.get("/etc/kladder", {}).get("readOnly") is True, "the configuration is not mounted")
    # The variables that the configuration needs exist.
    given = {item["name"] for item in kladder["env"]}
    expect({"BROKERS", "INSTANCE", "HANDLER"} <= given, f"the environment has {given}")

    drain, grace = seconds(settings["worker"]["drain"]), pod["terminationGracePeriodSeconds"]
    if not sidecars:
        expect(drain < grace, f"a drain of {drain} s, and {grace} s until it is killed")
        return faults
    expect(kladder.get("restartPolicy") == "Always", "an init container that does not stay is no sidecar")
    for container in containers:
        pre_stop = container["lifecycle"]["preStop"]
        wait = pre_stop["sleep"]["seconds"] if "sleep" in pre_stop else asked_wait(pre_stop, settings)
        timeout = seconds(next(iter(settings["ladder"].values()))["handler"]["timeout"])
        expect(wait > timeout, f"preStop waits {wait} s, for calls that take {timeout} s")
        expect(wait + drain < grace, f"preStop {wait} s and drain {drain} s, and {grace} s until all are killed")
    return faults


def asked_wait(pre_stop, settings):
    """How long a request to /quiesce waits; it must go to kladder's address."""
    command = pre_stop["exec"]["command"]
    url = urllib.parse.urlsplit(command[-1])
    assert url.netloc == settings["admin"]["listen"] and url.path == "/quiesce", command
    return seconds(urllib.parse.parse_qs(url.query)["wait"][0])


def without_client(document, readme):
    """The sidecar's manifest with the README's lifecycles for an application that cannot send requests."""
    lifecycles = yaml.safe_load(re.search(r"```yaml\n(.*?)```", readme, re.S).group(1))
    document = copy.deepcopy(document)
    pod = document["spec"]["template"]["spec"]
    for container in pod["initContainers"] + pod["containers"]:
        container["lifecycle"] = lifecycles.pop(container["name"])
    assert not lifecycles, lifecycles
    return document


def main(folder):
    folder = pathlib.Path(folder)
    text = (folder / "kladder.toml").read_text()
    settings = tomllib.loads(text)
    documents = {path.name: yaml.safe_load(path.read_text()) for path in sorted((folder / "kubernetes").iterdir())}
    assert sorted(documents) == ["config.yaml", "deployment.yaml", "sidecar.yaml"], sorted(documents)
    documents["without a client"] = without_client(documents["sidecar.yaml"], (folder / "README.md").read_text())
    faults = []
    for name, document in documents.items():
        faults += [f"{name}: {fault}" for fault in schema_faults(document)]
        if document["kind"] == "Deployment":
            faults += [f"{name}: {fault}" for fault in pod_faults(document["spec"]["template"]["spec"], settings)]
    if documents["config.yaml"]["data"] != {"kladder.toml": text}:
        faults.append("config.yaml is not kladder.toml")

    # Mistakes are found: one in a name, and one in a time.
    wrong = copy.deepcopy(documents["sidecar.yaml"])
    pod = wrong["spec"]["template"]["spec"]
    pod["initContainers"][0]["restartPolicyy"] = "Always"
    pod["terminationGracePeriodSeconds"] = 40
    if len(schema_faults(wrong)) != len(VERSIONS) or len(pod_faults(pod, settings)) != 1:
        faults.append("planted mistakes are not found")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


sys.exit(main(sys.argv[1]))
