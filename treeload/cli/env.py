"""``treeload env``: versions, for a report of a fault."""

from __future__ import annotations

import platform

import typer

from treeload.cli.say import Json, show_json, version

PACKAGES = (
    "treeload", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy", "ml_dtypes",
    "safetensors", "equinox", "fsspec", "huggingface_hub", "h5py", "gguf",
)  # fmt: skip


def env(json: Json = False) -> None:
    """Versions of Python, of the system and of what treeload works with, and JAX's devices."""
    import jax

    said = {
        "python": platform.python_version(),
        "system": platform.platform(),
        **{package: version(package) or "not installed" for package in PACKAGES},
        "devices": ", ".join(map(str, jax.devices())),
    }
    if json:
        show_json(said)
        return
    width = max(map(len, said))
    for what, value in said.items():
        typer.echo(f"{what:<{width}}  {value}")
