"""The stand-in backend, asked without starting it: the migrations that its image will have."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

SCHEMA = Path(__file__).parent / "images" / "backend" / "schema.py"


def migrations() -> Mapping[str, str]:
    """Every migration's SQL by file name, oldest first, as the build of the image writes it."""
    # Beside the package: the folder of images has the name of a module.
    spec = importlib.util.spec_from_file_location("standin_schema", SCHEMA)
    assert spec is not None and spec.loader is not None
    schema = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = schema  # dataclasses look their module up
    spec.loader.exec_module(schema)
    found: Mapping[str, str] = schema.files()
    return found
