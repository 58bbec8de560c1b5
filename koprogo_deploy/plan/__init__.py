"""What a deploy will do, decided before anything is touched. Pure, but for `gather`.

`gather` looks at the host, `make` decides, `text` and `cli.plan` show it, and the
deploy's stages carry it out: `operations.planning` holds the host against it.
"""
