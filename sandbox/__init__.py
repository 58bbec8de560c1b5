"""A VPS in a box: a container that boots systemd and sshd, a registry, an authority."""
