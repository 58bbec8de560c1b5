"""Production: one VPS. Write its address in place of the placeholder."""

vps = [
    (
        "vps.example.invalid",
        {
            "ssh_user": "debian",
            "_sudo": True,
        },
    )
]
