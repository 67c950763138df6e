"""Runs the steps of a Dockerfile without an engine: DOCKERFILE CONTEXT SCRATCH PROFILE. Each stage is a folder of SCRATCH, in which paths
begin; base images are taken to have what the machine has. Then the last stage's program runs in that folder as its whole world: without
root, which may be written to by nobody. It needs no library that its base image lacks."""

import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

# Of distroless/cc.
BASE_HAS = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def instructions(text):
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        name, rest = line.split(None, 1)
        yield name.upper(), rest.strip()


def is_ignored(path, patterns):
    """By the last matching pattern, for the patterns used here: top-level names, and `*`."""
    ignored = False
    for pattern in patterns:
        kept = pattern.startswith("!")
        if fnmatch.fnmatch(path.split("/")[0], pattern.lstrip("!")):
            ignored = not kept
    return ignored


class Stage:
    def __init__(self, root):
        self.root, self.workdir, self.environment, self.arguments = root, "/", {}, {}
        self.user, self.entrypoint = None, None
        root.mkdir(parents=True, exist_ok=True)

    def place(self, path):
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def copy(self, sources, target):
        place = self.place(target)
        for source in sources:
            # With their times, so that what is built already is not built again.
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True, copy_function=shutil.copy2)
            elif target.endswith("/"):
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place)

    def run(self, command):
        say("+", command)
        place = self.place("")
        environment = {**os.environ, **self.arguments, **self.environment}
        subprocess.run(["sh", "-ec", command], cwd=place, env=environment, check=True, stdin=subprocess.DEVNULL)


def build(dockerfile, context, scratch, given):
    ignore = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text().split()
    stages, stage = {}, None
    for name, rest in instructions(dockerfile.read_text()):
        words = shlex.split(rest)
        match name:
            case "FROM":
                label = words[2] if len(words) == 3 and words[1].upper() == "AS" else str(len(stages))
                root = scratch / label
                # Built files stay, copied ones are deleted: a file that has left the list must not remain.
                shutil.rmtree(root, ignore_errors=True)
                stage = stages[label] = Stage(root)
            case "ARG":
                key, value = rest.split("=", 1)
                stage.arguments[key] = given.get(key, value)
            case "ENV":
                key, value = rest.split("=", 1)
                stage.environment[key] = value
            case "WORKDIR":
                stage.workdir = rest
                stage.place("").mkdir(parents=True, exist_ok=True)
            case "COPY":
                source = context
                if words[0].startswith("--from="):
                    other = stages[words.pop(0).removeprefix("--from=")]
                    source = other.root
                elif ignored := [path for path in words[:-1] if is_ignored(path, ignore)]:
                    raise SystemExit(f"{ignored} is kept from the builder by {dockerfile.name}.dockerignore")
                # The ownership is up to an engine.
                words = [word for word in words if not word.startswith("--chown=")]
                stage.copy([source / path.lstrip("/") for path in words[:-1]], words[-1])
            case "RUN":
                stage.run(rest)
            case "USER":
                stage.user = rest
            case "ENTRYPOINT":
                stage.entrypoint = re.findall(r'"([^"]*)"', rest)
            case "EXPOSE" | "CMD":
                pass
            case _:
                raise SystemExit(f"{name} is not known here")
    return stage


def bring_libraries(stage, program):
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    lacking = []
    for line in told.splitlines():
        name, *rest = line.split()
        path = rest[1] if rest[:1] == ["=>"] else name
        if not path.startswith("/"):
            continue
        if name not in BASE_HAS and not name.startswith("/"):
            lacking.append(name)
        stage.copy([pathlib.Path(path)], path)
    if lacking:
        raise SystemExit(f"the base image has no {lacking}")


def world(stage):
    """The command that runs another one in the stage's directory, read-only, as the image's user."""
    root = shlex.quote(str(stage.root))
    enter, as_user = ["unshare", "--mount"], f"--userspec={stage.user}"
    if os.geteuid() != 0:
        # Without root the user cannot be changed, and has no special rights.
        enter, as_user = ["unshare", "--map-root-user", "--mount"], ""
    steps = f"mount --bind {root} {root}; mount -o remount,bind,ro {root}; exec setpriv --no-new-privs chroot {as_user} {root} \"$@\""
    return [*enter, "sh", "-ec", steps, "-"]


def main(dockerfile, context, scratch, profile):
    dockerfile, context, scratch = pathlib.Path(dockerfile), pathlib.Path(context), pathlib.Path(scratch)
    # kladder's own code need not be fast here, so it compiles in a third of the time; its dependencies are built already.
    settings = scratch / ".cargo" / "config.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f'profile.{profile}.package.kladder.opt-level = 0\n')
    stage = build(dockerfile, context, scratch, {"PROFILE": profile})
    assert stage.user and not stage.user.startswith(("0", "root")), f"the image runs as {stage.user}"
    program = stage.place(stage.entrypoint[0])
    sections = subprocess.run(["readelf", "--sections", "--wide", program], capture_output=True, text=True, check=True).stdout
    assert ".debug_info" not in sections, "the image carries what only a debugger reads"
    assert ".symtab" in sections, "no backtrace names a function"
    bring_libraries(stage, program)
    # The content of a volume.
    stage.copy([dockerfile.with_name("kladder.toml")], "/etc/kladder/kladder.toml")
    for arguments in [["--version"], ["check"], ["generate", "acls"]]:
        command = [*world(stage), *stage.entrypoint, *arguments]
        ran = subprocess.run(command, env=stage.environment | {"PATH": os.environ["PATH"]}, capture_output=True, text=True)
        print(ran.stdout, end="")
        if ran.returncode != 0:
            raise SystemExit(f"{arguments} in the image: {ran.returncode}\n{ran.stderr}")


main(*sys.argv[1:])
