"""`up`: from nothing, or from whatever a hard stop left, to a VPS that answers."""

import datetime as dt
import platform
import time
from dataclasses import replace

from sandbox import authority, box, disk, engine, images, parts, qemu, registry, vm
from sandbox import state as states
from sandbox.client import Docker
from sandbox.console import SandboxError, Steps, out
from sandbox.state import Kind, Sandbox, State

NAMES = ["koprogo.localhost", "api.koprogo.localhost", "localhost"]


def supported() -> None:
    """The images hold amd64 programs."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise SandboxError(
            f"the sandbox runs on amd64 only, this machine is {platform.machine()}",
            "use a machine (or a virtual one) with an x86-64 processor",
        )


def references(plan: images.Plan) -> dict[str, str]:
    """What the deploy pulls, by service."""
    return {image.name: f"{registry.NAME}/{image.published}" for image in plan.published}


def vps_image(plan: images.Plan, kind: Kind) -> str:
    """What the VPS of a kind is made of."""
    return plan.images["vps" if kind is Kind.box else "vm"].tag


def is_up(sandbox: Sandbox, plan: images.Plan, kind: Kind) -> State | None:
    """The state, if everything is as `up` would leave it."""
    found = states.read(sandbox)
    docker, _ = engine.connect()
    if found is None or docker is None:
        return None
    names = [sandbox.registry, *([sandbox.vps] if kind is Kind.box else [])]
    containers = docker.inspect("container", *names)
    running = [c for c in containers if c["State"]["Status"] == "running"]
    certificates = (
        authority.load(sandbox.directory / f"{stem}.crt", sandbox.directory / f"{stem}.key")
        for stem in ("ca", "tls", "registry")
    )
    current = (
        found.kind is kind
        and len(running) == len(names)
        and (kind is Kind.box or qemu.running(sandbox) is not None)
        and found.images == references(plan)
        and found.box_image == vps_image(plan, kind)
        and found.registry_image == plan.images["registry"].tag
        and all(pair and authority.lasts(pair[0], authority.RENEW_DAYS) for pair in certificates)
        and answers(found)
    )
    return found if current else None


def answers(state: State) -> bool:
    """Whether the SSH server of the VPS does, in the time that its kind needs."""
    patience = vm.PATIENCE[qemu.Accelerator(state.accelerator)] if state.kind is Kind.vm else 1.0
    return box.banner(state.ssh_port, 2 * patience)


def present(sandbox: Sandbox) -> Kind | None:
    """The kind that is there by what can be seen without an engine; None if nothing is."""
    found = states.read(sandbox)
    if found:
        return found.kind
    return Kind.vm if vm.there(sandbox) else None


def up(sandbox: Sandbox, asked: Kind | None = None) -> State:
    """Bring the sandbox up; quick when it is.

    Args:
        sandbox: whose.
        asked: a kind; None for the one that is there, or a box.

    Raises:
        SandboxError: another kind is there.
    """
    supported()
    began = time.monotonic()
    sandbox.prepare()
    kind = states.choose_kind(present(sandbox), asked)
    plan = images.plan(kind)
    found = is_up(sandbox, plan, kind)
    if found:
        if kind is Kind.vm:
            vm.set_clock(found)
        out.print(f"the sandbox is already up [dim]({time.monotonic() - began:.1f} s)[/]")
        return found
    with sandbox.lock():
        # Another command may have come first.
        return build_up(sandbox, plan, states.choose_kind(present(sandbox), kind))


def build_up(sandbox: Sandbox, plan: images.Plan, kind: Kind) -> State:
    """All steps, each of which does nothing where nothing is to be done."""
    steps = Steps(total=len(plan.images) + (7 if kind is Kind.box else 9))
    with steps.step("container engine") as remarks:
        docker, notes = engine.ensure()
        remarks += notes
    if kind is Kind.vm and parts.container(docker, sandbox.vps):
        states.choose_kind(Kind.box, kind)  # its state is lost, it is not
    with steps.step("root filesystem Debian 13") as remarks:
        remarks.append(images.build_raw(docker, plan))
    for image in plan.images.values():
        with steps.step(f"image {image.tag.partition(':')[0]}") as remarks:
            remarks.append("built" if images.build(docker, plan, image) else "present")
    if "backend" not in plan.images:
        out.print("[yellow]no stand-in backend here (sandbox/images/backend/Dockerfile)[/]")
    with steps.step("keys and certificates"):
        host_key, renewed = keys(sandbox)
    with steps.step("registry") as remarks:
        prefix = parts.network(docker, sandbox)
        remarks.append(start_registry(docker, sandbox, plan, f"{prefix}.{parts.REGISTRY}", renewed))
        number = registry.wait(docker, sandbox)
    with steps.step("push images") as remarks:
        for image in plan.published:
            if registry.push(docker, sandbox, number, image):
                remarks.append(image.name)
        if not remarks:
            remarks.append("registry has them")
    if kind is Kind.vm:
        current = vm_up(docker, sandbox, plan, prefix, host_key, steps)
    else:
        current = box_up(docker, sandbox, plan, prefix, host_key, steps)
    if rivals := parts.other_boxes(docker, sandbox.vps) + qemu.others(sandbox.vps):
        out.print(f"[yellow]other sandboxes run here, on the same CPU: {', '.join(rivals)}[/]")
    out.print(f"[bold green]up[/] in {steps.elapsed:.1f} s")
    return current


def box_up(
    docker: Docker, sandbox: Sandbox, plan: images.Plan, prefix: str, host_key: str, steps: Steps
) -> State:
    """The box, started and answering."""
    with steps.step("box") as remarks:
        current, how = start_box(docker, sandbox, plan, prefix)
        states.write_ssh(sandbox, current, host_key)
        states.save(sandbox, current)
        remarks.append(how)
    with steps.step("boot and ssh"):
        box.hang_up(sandbox, current)
        box.wait(docker, sandbox, current)
    return current


def vm_up(
    docker: Docker, sandbox: Sandbox, plan: images.Plan, prefix: str, host_key: str, steps: Steps
) -> State:
    """The virtual machine, started and answering."""
    with steps.step("QEMU") as remarks:
        remarks.append(qemu.ensure())
    with steps.step("root disk") as remarks:
        tag = vps_image(plan, Kind.vm)
        remarks.append("made" if disk.build(docker, tag) else "present")
    with steps.step("virtual machine") as remarks:
        runs = qemu.running(sandbox) is not None
        current, how = start_vm(docker, sandbox, plan, prefix)
        states.write_ssh(sandbox, current, host_key)
        remarks += how
    with steps.step("boot and ssh"):
        box.hang_up(sandbox, current)
        vm.wait(sandbox, current)
        if runs:  # else it has just read its drive, and its clock
            vm.refresh(sandbox, current, prefix)
            vm.set_clock(current)
    return current


def start_vm(
    docker: Docker, sandbox: Sandbox, plan: images.Plan, prefix: str
) -> tuple[State, list[str]]:
    """The virtual machine, started or made; the state that describes it, and remarks."""
    tag = vps_image(plan, Kind.vm)
    previous = states.read(sandbox)
    if previous and qemu.running(sandbox):
        connected = bool(previous.box_address) and vm.connect(docker, sandbox)
        current, remarks = previous, ["already running"]
    else:
        # One whose state is lost has ports that nobody knows.
        qemu.stop(sandbox)
        new = vm.prepare(sandbox, tag, prefix)
        chosen, why = vm.choose_accelerator(sandbox)
        connected = vm.connect(docker, sandbox)
        remarks = ["made" if new else "was off, started", f"{chosen}: {why}"]
        current = replace(
            describe(sandbox, prefix, states.choose_ports(previous)),
            kind=Kind.vm,
            accelerator=chosen,
            container="",
            gateway=qemu.GATEWAY,
            box_image=tag if new or previous is None else previous.box_image,
        )
    current = replace(
        current,
        box_address=f"{prefix}.{parts.BOX}" if connected else "",
        images=references(plan),
        registry_image=plan.images["registry"].tag,
    )
    # Before it starts: one that runs and that no state describes would have to be ended.
    states.save(sandbox, current)
    if not qemu.running(sandbox):
        vm.start(sandbox, current)
    if current.box_image != tag:
        remarks.append("its image has changed: `down` and `up` for a new one")
    return current, remarks


def keys(sandbox: Sandbox) -> tuple[str, bool]:
    """SSH keys and certificates; the host's public key and whether the registry's is new."""
    own = sandbox.directory
    authority.ssh_key(own / "id_ed25519", f"koprogo-sandbox-{sandbox.id}")
    host_key = authority.ssh_key(own / "ssh_host_ed25519_key", "vps")
    root = authority.root(own, f"KoproGo sandbox {sandbox.id}")
    authority.server(own, "tls", NAMES, root)
    return host_key, registry.issue(sandbox)


def restart(sandbox: Sandbox, state: State, *, hard: bool) -> None:
    """Reboot the VPS, whichever kind it is; `hard`: without a clean stop.

    Raises:
        SandboxError: it is gone, or does not stop.
    """
    if state.kind is Kind.vm:
        vm.restart(sandbox, state, hard=hard)
        return
    docker = engine.require()
    if not docker.inspect("container", sandbox.vps):
        raise SandboxError("the box is gone", "run: python -m sandbox up")
    box.restart(docker, sandbox, hard=hard)


def wait(sandbox: Sandbox, state: State) -> None:
    """Wait until the VPS has booted and lets the user in."""
    if state.kind is Kind.vm:
        vm.wait(sandbox, state)
    else:
        box.wait(engine.require(), sandbox, state)


def start_registry(
    docker: Docker, sandbox: Sandbox, plan: images.Plan, address: str, renewed: bool
) -> str:
    """The registry of the current image with the current certificate."""
    image = plan.images["registry"].tag
    found = parts.container(docker, sandbox.registry)
    if found:
        parts.ours(sandbox, found, "container", sandbox.registry)
        if found["Config"]["Labels"].get("koprogo-sandbox.built-from") != image:
            # Its content is in a volume: nothing is lost.
            docker.call("rm", "--force", sandbox.registry)
    how = parts.bring_up(docker, sandbox, sandbox.registry)
    if how is None:
        parts.volume(docker, sandbox, "registry")
        registry.create(docker, sandbox, image, address)
        return "created"
    if renewed:
        registry.certify(docker, sandbox)
        docker.call("restart", "--time", "5", sandbox.registry)
        return "new certificate"
    return how


def start_box(
    docker: Docker, sandbox: Sandbox, plan: images.Plan, prefix: str
) -> tuple[State, str]:
    """The box, started or created; and the state that describes it."""
    image = plan.images["vps"].tag
    previous = states.read(sandbox)
    found = parts.container(docker, sandbox.vps)
    actual, note, how = image, "", None
    if found:
        parts.ours(sandbox, found, "container", sandbox.vps)
        actual = found["Config"]["Labels"].get("koprogo-sandbox.built-from", "")
        if actual != image and box.deployed(docker, sandbox):
            note = "; its image has changed, but it holds a deploy: `down` and `up` for a new one"
        elif actual != image:
            box.hang_up(sandbox, previous)
            docker.call("rm", "--force", sandbox.vps)
            found = None
    if found:
        # Before the start: sshd and the boot script read these once.
        box.refresh(docker, sandbox)
        if previous is None:
            box.furnish(docker, sandbox)
        how = parts.bring_up(docker, sandbox, sandbox.vps)
    if found and how:
        ports = box.published(found)
    else:
        actual, how = image, "created"
        ports = states.choose_ports(previous)
        box.create(docker, sandbox, image, prefix, ports)
        box.refresh(docker, sandbox)
        box.furnish(docker, sandbox)
        docker.call("start", sandbox.vps)
        previous = None
    current = replace(
        previous or describe(sandbox, prefix, ports),
        images=references(plan),
        box_image=actual,
        registry_image=plan.images["registry"].tag,
    )
    return current, how + note


def describe(sandbox: Sandbox, prefix: str, ports: dict[str, int]) -> State:
    """The state of a new box."""
    own = sandbox.directory
    return State(
        ssh_host="127.0.0.1",
        ssh_port=ports["ssh"],
        ssh_user=states.USER,
        ssh_key=str(own / "id_ed25519"),
        known_hosts=str(own / "known_hosts"),
        http_port=ports["http"],
        https_port=ports["https"],
        gateway=f"{prefix}.{parts.GATEWAY}",
        box_address=f"{prefix}.{parts.BOX}",
        registry=registry.NAME,
        images={},
        ca_certificate=str(own / "ca.crt"),
        tls_certificate=str(own / "tls.crt"),
        tls_key=str(own / "tls.key"),
        container=sandbox.vps,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        ssh_config=str(own / "ssh_config"),
        extra={"other_cpus": pinned[1]} if (pinned := box.cpus()) else {},
    )
