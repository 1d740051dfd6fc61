"""What commands are given beside paths: files of rules and policies, and modules to load into.

A file of rules is Python and is run: it is yours, as the module is that holds your model. A file of a policy
is TOML and holds nothing but words.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from treeload.cli.say import Misuse


def destination(target: str) -> Any:
    """The tree that ``MODULE:FACTORY`` gives: what the factory returns, or the object if it is no function.

    Modules are found from the working directory, too.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise Misuse(f"--into takes MODULE:FACTORY, as in models.vit:make, not {target!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with _yours(f"--into {target}"):
            loaded = importlib.import_module(module)
    except Misuse as misuse:
        error = misuse.__cause__
        if not isinstance(error, ModuleNotFoundError):
            raise
        asked = f"{module}.".startswith(f"{error.name}.")
        why = " here, nor among what is installed" if asked else f", which {module} imports"
        raise Misuse(f"--into {target}: there is no module {error.name!r}{why}") from error
    return _called(loaded, name, f"--into {target}")


def _called(module: Any, name: str, where: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], 3)
            meant = f"; near: {', '.join(near)}" if near else ""
            raise Misuse(f"{where}: {getattr(module, '__name__', module)!s} has no {part!r}{meant}")
        found = getattr(found, part)
    if isinstance(found, type) or (callable(found) and _is_function(found)):
        with _yours(where):
            return found()
    return found


@contextmanager
def _yours(where: str) -> Iterator[None]:
    """What your code raises ends as any other command that cannot be carried out; ``--debug`` shows where."""
    try:
        yield
    except Exception as error:
        raise Misuse(f"{where}: your code raised {type(error).__name__}: {error}") from error


def _is_function(found: Any) -> bool:
    """Whether it is to be called; a model can be called too, and is what is asked for already."""
    import jax

    return hasattr(found, "__code__") or hasattr(found, "func") or jax.tree_util.all_leaves([found])


def rules(target: str | None) -> Any:
    """The rules that ``FILE.py:NAME`` gives: rules, or a function of no arguments that returns them."""
    if target is None:
        return ()
    filename, _, name = target.rpartition(":")
    if not filename:
        filename, name = target, "rules"
    path = Path(filename)
    if not path.is_file():
        raise Misuse(f"--rules {target}: there is no file {filename!r}")
    spec = importlib.util.spec_from_file_location(f"treeload_rules_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise Misuse(f"--rules {target}: {filename!r} is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    with _yours(f"--rules {target}"):
        spec.loader.exec_module(module)
    return _called(module, name, f"--rules {target}")


def policy(filename: str | None) -> Any:
    """The policy that a TOML file holds: for each setting a verdict, or a table of patterns and verdicts."""
    from treeload import Policy, RuleError

    if filename is None:
        return Policy()
    try:
        with open(filename, "rb") as file:
            said = tomllib.load(file)
    except OSError as error:
        raise Misuse(f"--policy {filename}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise Misuse(f"--policy {filename}: no TOML: {error}") from error
    known = [field.name for field in fields(Policy) if field.init]
    for key in said:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            meant = f"; {near[0]!r} is near" if near else ""
            raise Misuse(f"--policy {filename}: a policy has no {key!r}{meant}: it has {', '.join(known)}")
    try:
        return Policy(**said)
    except RuleError as error:
        raise Misuse(f"--policy {filename}: {error}") from error
