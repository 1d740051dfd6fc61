"""Load a checkpoint into a JAX tree by name, strictly, and only after saying what it will do.

plan = treeload.plan(model, "ckpts/vit")     # reads shapes and dtypes only
print(plan)                                   # which leaves would load, and what is wrong
model = plan.load()                           # does exactly that, or changes nothing
"""

from treeload import rules as rules  # the module of ready-made rules: treeload.rules.linen_to_nnx
from treeload._api.checkpoints import average, diff, initializer, resume
from treeload._api.load import load, plan, update
from treeload._api.look import inspect, names, state
from treeload._api.look import open as open  # not in __all__: a star import would replace the builtin
from treeload._api.save import export, save
from treeload._checkpoints.history import History
from treeload._checkpoints.verify import Verification, digest, verify
from treeload._errors import NameCollision, RuleError, SaveError, SourceError, TreeloadError, TreeloadWarning
from treeload._findings.finding import Finding
from treeload._findings.policy import BIAS, Policy
from treeload._naming.name import Name
from treeload._ops.convert import Apply, Cast
from treeload._ops.layout import Reshape, Transpose
from treeload._ops.op import Op
from treeload._ops.resize import Pad, Resize, Slice
from treeload._plan import LoadError, LockError, Plan, check_lock
from treeload._plans.entry import Entry
from treeload._reports.diff import Diff
from treeload._reports.inventory import Inventory
from treeload._rules.copy import Copy
from treeload._rules.rename import Rename
from treeload._rules.rule import Rule
from treeload._rules.split import Concat, Split
from treeload._rules.stack import Stack, Unstack
from treeload._rules.tie import Tie
from treeload._sources.part import From
from treeload._sources.source import Source, SourceLeaf
from treeload._versions.version import Version

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
]

for _name in __all__:
    # Users meet these as treeload.LoadError, in tracebacks and in the docs, wherever they are written.
    _public = globals()[_name]
    if isinstance(_public, type):
        _public.__module__ = "treeload"
del _name, _public

# After the names above: it uses them as its users do.
from treeload import finetune as finetune  # noqa: E402  # treeload.finetune.split_optimizer
