"""Load a checkpoint into a JAX tree by name, strictly, and only after saying what it will do.

plan = treeload.plan(model, "ckpts/vit")     # reads shapes and dtypes only
print(plan)                                   # which leaves would load, and what is wrong
model = plan.load()                           # does exactly that, or changes nothing
"""

import importlib as _importlib
import sys as _sys
import typing as _typing

if _typing.TYPE_CHECKING:  # what follows is looked up when it is asked for
    from treeload import finetune as finetune
    from treeload import plot as plot
    from treeload import rules as rules
    from treeload._api.checkpoints import average as average
    from treeload._api.checkpoints import diff as diff
    from treeload._api.checkpoints import initializer as initializer
    from treeload._api.checkpoints import resume as resume
    from treeload._api.load import load as load
    from treeload._api.load import plan as plan
    from treeload._api.load import update as update
    from treeload._api.look import inspect as inspect
    from treeload._api.look import names as names
    from treeload._api.look import open as open
    from treeload._api.look import state as state
    from treeload._api.save import export as export
    from treeload._api.save import save as save
    from treeload._checkpoints.history import History as History
    from treeload._checkpoints.verify import Verification as Verification
    from treeload._checkpoints.verify import digest as digest
    from treeload._checkpoints.verify import verify as verify
    from treeload._errors import NameCollision as NameCollision
    from treeload._errors import RuleError as RuleError
    from treeload._errors import SaveError as SaveError
    from treeload._errors import SourceError as SourceError
    from treeload._errors import TreeloadError as TreeloadError
    from treeload._errors import TreeloadWarning as TreeloadWarning
    from treeload._findings.finding import Finding as Finding
    from treeload._findings.policy import BIAS as BIAS
    from treeload._findings.policy import Policy as Policy
    from treeload._naming.name import Name as Name
    from treeload._ops.convert import Apply as Apply
    from treeload._ops.convert import Cast as Cast
    from treeload._ops.layout import Reshape as Reshape
    from treeload._ops.layout import Transpose as Transpose
    from treeload._ops.op import Op as Op
    from treeload._ops.resize import Pad as Pad
    from treeload._ops.resize import Resize as Resize
    from treeload._ops.resize import Slice as Slice
    from treeload._plan import LoadError as LoadError
    from treeload._plan import LockError as LockError
    from treeload._plan import Plan as Plan
    from treeload._plan import check_lock as check_lock
    from treeload._plans.entry import Entry as Entry
    from treeload._reports.diff import Diff as Diff
    from treeload._reports.inventory import Inventory as Inventory
    from treeload._rules.copy import Copy as Copy
    from treeload._rules.rename import Rename as Rename
    from treeload._rules.rule import Rule as Rule
    from treeload._rules.split import Concat as Concat
    from treeload._rules.split import Split as Split
    from treeload._rules.stack import Stack as Stack
    from treeload._rules.stack import Unstack as Unstack
    from treeload._rules.tie import Tie as Tie
    from treeload._sources.part import From as From
    from treeload._sources.source import Source as Source
    from treeload._sources.source import SourceLeaf as SourceLeaf
    from treeload._versions.version import Version as Version

_WHERE = {
    "Apply": "treeload._ops.convert",
    "BIAS": "treeload._findings.policy",
    "Cast": "treeload._ops.convert",
    "Concat": "treeload._rules.split",
    "Copy": "treeload._rules.copy",
    "Diff": "treeload._reports.diff",
    "Entry": "treeload._plans.entry",
    "Finding": "treeload._findings.finding",
    "From": "treeload._sources.part",
    "History": "treeload._checkpoints.history",
    "Inventory": "treeload._reports.inventory",
    "LoadError": "treeload._plan",
    "LockError": "treeload._plan",
    "Name": "treeload._naming.name",
    "NameCollision": "treeload._errors",
    "Op": "treeload._ops.op",
    "Pad": "treeload._ops.resize",
    "Plan": "treeload._plan",
    "Policy": "treeload._findings.policy",
    "Rename": "treeload._rules.rename",
    "Reshape": "treeload._ops.layout",
    "Resize": "treeload._ops.resize",
    "Rule": "treeload._rules.rule",
    "RuleError": "treeload._errors",
    "SaveError": "treeload._errors",
    "Slice": "treeload._ops.resize",
    "Source": "treeload._sources.source",
    "SourceError": "treeload._errors",
    "SourceLeaf": "treeload._sources.source",
    "Split": "treeload._rules.split",
    "Stack": "treeload._rules.stack",
    "Tie": "treeload._rules.tie",
    "Transpose": "treeload._ops.layout",
    "TreeloadError": "treeload._errors",
    "TreeloadWarning": "treeload._errors",
    "Unstack": "treeload._rules.stack",
    "Verification": "treeload._checkpoints.verify",
    "Version": "treeload._versions.version",
    "average": "treeload._api.checkpoints",
    "check_lock": "treeload._plan",
    "diff": "treeload._api.checkpoints",
    "digest": "treeload._checkpoints.verify",
    "export": "treeload._api.save",
    "initializer": "treeload._api.checkpoints",
    "inspect": "treeload._api.look",
    "load": "treeload._api.load",
    "names": "treeload._api.look",
    "open": "treeload._api.look",
    "plan": "treeload._api.load",
    "resume": "treeload._api.checkpoints",
    "save": "treeload._api.save",
    "state": "treeload._api.look",
    "update": "treeload._api.load",
    "verify": "treeload._checkpoints.verify",
}
"""Each public name and the module that it is looked up in (PEP 562): the command line, which may want none of
them, is not to wait for JAX."""

_MODULES = ("finetune", "plot", "rules")
"""Modules that are there without being imported: ``treeload.finetune.split_optimizer``."""

__all__ = [
    "BIAS",
    "Apply",
    "Cast",
    "Concat",
    "Copy",
    "Diff",
    "Entry",
    "Finding",
    "From",
    "History",
    "Inventory",
    "LoadError",
    "LockError",
    "Name",
    "NameCollision",
    "Op",
    "Pad",
    "Plan",
    "Policy",
    "Rename",
    "Reshape",
    "Resize",
    "Rule",
    "RuleError",
    "SaveError",
    "Slice",
    "Source",
    "SourceError",
    "SourceLeaf",
    "Split",
    "Stack",
    "Tie",
    "Transpose",
    "TreeloadError",
    "TreeloadWarning",
    "Unstack",
    "Verification",
    "Version",
    "average",
    "check_lock",
    "diff",
    "digest",
    "export",
    "initializer",
    "inspect",
    "load",
    "names",
    "plan",
    "resume",
    "save",
    "state",
    "update",
    "verify",
]  # not open: a star import would replace the builtin


def __getattr__(name: str) -> _typing.Any:
    if name in _MODULES:
        found: _typing.Any = _importlib.import_module(f"treeload.{name}")
    elif name in _WHERE:
        found = getattr(_importlib.import_module(_WHERE[name]), name)
    else:
        raise AttributeError(f"module 'treeload' has no attribute {name!r}")
    globals()[name] = found
    _claim()
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, *_MODULES})


def _claim() -> None:
    """Users meet the classes as treeload.Plan, in tracebacks and docs, wherever they are written."""
    for name, module in _WHERE.items():
        public = getattr(_sys.modules.get(module), name, None)
        if isinstance(public, type):
            public.__module__ = "treeload"
