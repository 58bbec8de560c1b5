"""Staging: one VPS like production's. Write its address in place of the placeholder."""

vps = [
    (
        "staging.vps.example.invalid",
        {
            "ssh_user": "debian",
            "_sudo": True,
        },
    )
]
