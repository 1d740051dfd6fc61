"""What commands are given beside paths: models to load into, and files of rules.

A file of rules is Python and is run: it is yours, as the module is that holds your model. What it prints goes
to the standard error, for which commands run it ``aside``. Policies are in ``policies``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from treeload.cli.say import Misuse

if TYPE_CHECKING:
    from treeload._leaves.spec import Spec


def destination(target: str) -> Any:
    """The tree that ``MODULE:FACTORY`` gives: what the factory returns, or the object if it is no function.

    Modules are found from the working directory, too; a file, ``FILE.py:FACTORY``, is run as it lies.
    """
    module, _, name = target.rpartition(":")
    if not module or not name:
        raise Misuse(
            f"--into takes MODULE:FACTORY, as in models.vit:make or models/vit.py:make, not {target!r}"
        )
    where = f"--into {target}"
    is_path = os.sep in module or module.endswith(".py")
    if is_path and (Path(module).is_file() or os.sep in module):
        return _called(_run(module, where), name, where, module)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with _yours(where):
            loaded = importlib.import_module(module)
    except Misuse as misuse:
        error = misuse.__cause__
        if not isinstance(error, ModuleNotFoundError):
            raise
        if is_path:
            raise Misuse(f"{where}: there is no file {module!r}") from error
        asked = f"{module}.".startswith(f"{error.name}.")
        why = " here, nor among what is installed" if asked else f", which {module} imports"
        raise Misuse(f"{where}: there is no module {error.name!r}{why}") from error
    return _called(loaded, name, where, module)


def rules(target: str | None) -> Any:
    """The rules that ``FILE.py:NAME`` gives: rules, or a function of no arguments that returns them."""
    if target is None:
        return ()
    filename, _, name = target.rpartition(":")
    if not filename:
        filename, name = target, "rules"
    where = f"--rules {target}"
    module = _run(filename, where)
    if name.isidentifier() and not hasattr(module, name):
        listed = [each for each, value in vars(module).items() if _are_rules(value)]
        near = difflib.get_close_matches(name, [each for each in vars(module) if each[0] != "_"], 1)
        meant = next(iter([*near, *listed]), None)
        if listed or meant is not None:
            has = f"it has {', '.join(listed)}" if listed else f"near: {meant}"
            raise Misuse(f"{where}: {filename!r} has no {name!r}; {has}: --rules {filename}:{meant}")
    return _called(module, name, where, filename)


FROM_PYTHON = (
    "their order is that of a model, into which Python loads them: "
    "treeload.load(model, From(path, by_position=True))"
)


def _are_rules(value: Any) -> bool:
    from treeload import Rule

    return isinstance(value, Rule) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Rule) for each in value)
    )


def _run(filename: str, where: str) -> ModuleType:
    """The module that a file of Python is; what lies beside it can be imported from it, as in a script."""
    path = Path(filename)
    if not path.is_file():
        meant = f"; {f'{filename}.py'!r} is one" if Path(f"{filename}.py").is_file() else ""
        raise Misuse(f"{where}: there is no file {filename!r}{meant}")
    name = f"treeload_{where.split()[0].strip('-')}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Misuse(f"{where}: {filename!r} is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    for beside in (str(path.absolute().parent), ""):
        if beside not in sys.path:
            sys.path.append(beside)  # behind all else: nothing that treeload needs is imported from there
    sys.modules[name] = module  # where classes look up what their annotations name
    with _yours(where):
        spec.loader.exec_module(module)
    return module


def _called(module: Any, name: str, where: str, called: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if n[0] != "_"], 3)
            meant = f"; near: {', '.join(near)}" if near else ""
            raise Misuse(f"{where}: {called} has no {part!r}{meant}")
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
        raised = f"your code raised {type(error).__name__}: {error}"
        raise Misuse(f"{where}: {raised}{_line(error)}") from error


def _line(error: Exception) -> str:
    """The innermost line of yours that it went through, which an error of syntax names itself."""
    if isinstance(error, SyntaxError):
        return ""
    # The interpreter's own, what is installed and treeload are none of yours.
    others = (f"{Path(os.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}", "<")
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if not f.filename.startswith(others) and "site-packages" not in f.filename]
    return f" (line {mine[-1].lineno} of {os.path.basename(mine[-1].filename)})" if mine else ""


def _is_function(found: Any) -> bool:
    """Whether it is to be called; a model can be called too, and is what is asked for already."""
    import jax

    return hasattr(found, "__code__") or hasattr(found, "func") or jax.tree_util.all_leaves([found])


def like(path: str) -> Any:
    """A checkpoint's leaves as a tree to load into: values may be kept, and none is read."""
    from treeload import open as open_checkpoint
    from treeload._trees.tree import nested

    source = open_checkpoint(path)
    if source.positional:
        raise Misuse(f"--like {path}: it holds arrays without names, so it says no model's leaves")
    return nested({tuple(name): _stand_in(spec) for name, spec in source.specs().items()})


def _stand_in(spec: Spec) -> Any:
    """An array of this spec with one element in place of all; the spec, where JAX has no such array now."""
    import jax
    import numpy as np

    if not isinstance(spec.dtype, np.dtype) or jax.dtypes.canonicalize_dtype(spec.dtype) != spec.dtype:
        return spec
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape)


@contextmanager
def by_name(*paths: str, otherwise: str) -> Iterator[None]:
    """Work on checkpoints whose arrays have names; where some have none, what to do ``otherwise`` is said."""
    from treeload import RuleError
    from treeload import open as open_checkpoint

    try:
        yield
    except RuleError as error:
        nameless = [path for path in paths if open_checkpoint(path).positional]
        if not nameless:
            raise
        raise Misuse(f"{nameless[0]!r} holds arrays without names: {otherwise}") from error
