"""Sandbox: the VPS as `make sandbox-up` made it, in a box or in a virtual machine."""

import json
import runpy
from pathlib import Path

_root = Path(__file__).resolve().parent.parent
_state_file = _root / ".sandbox" / "state.json"
if not _state_file.exists():
    raise SystemExit("The sandbox is not there. Make it with: make sandbox-up")
_vps = json.loads(_state_file.read_text())

# A box shares its kernel with the machine it runs on: what is not of its own network namespace is
# the machine's, and is left alone. A virtual machine is set up as production is.
_shared_kernel = {
    "swap": None,
    "time_synchronisation": False,
    "sysctl": {
        key: value
        for key, value in runpy.run_path(str(_root / "group_data" / "all.py"))["sysctl"].items()
        if key.startswith("net.")
    },
}

# QEMU's translator is ten times slower than a processor, and slower still beside other work.
_slow = {"backend_start_timeout": "10min"}

vps = [
    (
        "sandbox",
        {
            "ssh_hostname": _vps["ssh_host"],
            "ssh_port": _vps["ssh_port"],
            "ssh_user": _vps["ssh_user"],
            "ssh_key": _vps["ssh_key"],
            "ssh_known_hosts_file": _vps["known_hosts"],
            "ssh_strict_host_key_checking": "yes",
            "_sudo": True,
            **{f"{service}_image": image for service, image in _vps["images"].items()},
            "public_address": "127.0.0.1",
            # Without an address of its own it is reached by forwarded ports alone.
            "scan_address": _vps["box_address"] or None,
            "public_http_port": _vps["http_port"],
            "public_https_port": _vps["https_port"],
            "cors_origins": [f"https://koprogo.localhost:{_vps['https_port']}"],
            "ca_certificate": _vps["ca_certificate"],
            "tls_certificate": _vps["tls_certificate"],
            "tls_key": _vps["tls_key"],
            # The VPS has a CPU of its own: what loads it stays off that one.
            "load_cpus": _vps["extra"].get("other_cpus") or None,
            # This machine, as the VPS sees it.
            "load_client_addresses": [_vps["gateway"]],
            "superadmin_addresses": [_vps["gateway"]],
            **(_shared_kernel if _vps.get("kind", "box") == "box" else _slow),
        },
    )
]
