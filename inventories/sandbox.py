"""Sandbox: the VPS in a box, as `make sandbox-up` made it."""

import json
from pathlib import Path

_state_file = Path(__file__).resolve().parent.parent / ".sandbox" / "state.json"
if not _state_file.exists():
    raise SystemExit("The sandbox is not there. Make it with: make sandbox-up")
_box = json.loads(_state_file.read_text())

vps = [
    (
        "sandbox",
        {
            "ssh_hostname": _box["ssh_host"],
            "ssh_port": _box["ssh_port"],
            "ssh_user": _box["ssh_user"],
            "ssh_key": _box["ssh_key"],
            "ssh_known_hosts_file": _box["known_hosts"],
            "ssh_strict_host_key_checking": "yes",
            "_sudo": True,
            **{f"{service}_image": image for service, image in _box["images"].items()},
            "public_address": "127.0.0.1",
            "scan_address": _box["box_address"],
            "public_http_port": _box["http_port"],
            "public_https_port": _box["https_port"],
            "cors_origins": [f"https://koprogo.localhost:{_box['https_port']}"],
            "ca_certificate": _box["ca_certificate"],
            "tls_certificate": _box["tls_certificate"],
            "tls_key": _box["tls_key"],
            # The box has a CPU of its own: what loads it stays off that one.
            "load_cpus": _box["extra"].get("other_cpus") or None,
            # The machine outside the box, as the box sees it.
            "load_client_addresses": [_box["gateway"]],
            "superadmin_addresses": [_box["gateway"]],
        },
    )
]
