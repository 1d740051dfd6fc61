"""The names and shapes of a model, kept in a file: is the model still that, or does its history say why not?

Owns that file, and the version that is proposed where the history does not tell it. A text to look at in a
review: one leaf a line, sorted; of each version of the model, so that all that were ever saved still load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from treeload._checkpoints.history import History
from treeload._errors import RuleError
from treeload._files.strict_json import parse_json
from treeload._findings.finding import Finding
from treeload._findings.kinds import KINDS
from treeload._findings.policy import Policy
from treeload._formats.orbax.record import read_dtype
from treeload._leaves.spec import Spec, is_key, print_spec
from treeload._naming.name import Name, print_name
from treeload._plan import Plan
from treeload._reports.groups import group, print_names
from treeload._sources.source import as_source_error
from treeload._sources.stamp import WHOLE, Stamp, checked_stamp, print_stamp
from treeload._trees.tree import PyTree, nested
from treeload._versions.version import Version

_FORMAT = 1
_KEY_IMPLS = ("threefry2x32", "rbg", "unsafe_rbg")
_SHOWN = 12  # groups of names in one line of a message
_MOST = 100  # characters of a line


@dataclass(frozen=True)
class Recorded:
    """What a model held at one version.

    Attributes:
        version: the version, of the whole and of each scope.
        specs: its leaves.
    """

    version: Stamp
    specs: Mapping[Name, Spec]

    @property
    def tree(self) -> PyTree:
        """The model of that version, without values."""
        return nested({tuple(name): spec for name, spec in self.specs.items()})


def read(path: Path) -> list[Recorded]:
    """What the file says, the oldest version first.

    Raises:
        SourceError: it is no such file.
    """
    with as_source_error(f"{str(path)!r} is no file of a model's names"):
        record = parse_json(path.read_text("utf-8"))
        if record["format"] != _FORMAT:
            raise ValueError(f"it is of format {record['format']!r}, this is format {_FORMAT}")
        versions = [
            Recorded(
                checked_stamp(each["version"]),
                {Name.parse(name): _read_spec(spec) for name, spec in each["leaves"].items()},
            )
            for each in record["versions"]
        ]
        if not versions:
            raise ValueError("it knows no version")
        return versions


def write(path: Path, versions: Sequence[Recorded]) -> None:
    """Writes the file, one leaf a line."""
    blocks = []
    for each in versions:
        leaves = sorted((print_name(name), _spec_record(spec)) for name, spec in each.specs.items())
        lines = [f"        {_json(name)}: {_json(spec)}" for name, spec in leaves]
        version = _json(dict(each.version))
        inside = ",\n".join(lines)
        blocks.append(f'    {{\n      "version": {version},\n      "leaves": {{\n{inside}\n      }}\n    }}')
    inside = ",\n".join(blocks)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{\n  "format": {_FORMAT},\n  "versions": [\n{inside}\n  ]\n}}\n', "utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _spec_record(spec: Spec) -> dict[str, Any]:
    if is_key(spec.dtype):
        impl = next((name for name in _KEY_IMPLS if _key_dtype(name) == spec.dtype), None)
        if impl is None:
            raise RuleError(f"PRNG keys of the type {spec.dtype} cannot be written down")
        return {"key": impl, "shape": list(spec.shape)}
    return {"dtype": str(spec.dtype), "shape": list(spec.shape)}


def _read_spec(record: Any) -> Spec:
    shape = tuple(record["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{list(shape)} is no shape")
    if "key" in record:
        if record["key"] not in _KEY_IMPLS:
            raise ValueError(f"{record['key']!r} is no kind of PRNG key")
        return jax.ShapeDtypeStruct(shape, _key_dtype(record["key"]))
    return jax.ShapeDtypeStruct(shape, read_dtype(record["dtype"]))


def _key_dtype(impl: str) -> Any:
    return jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype


# Whether the model is what the file says.


def difference(recorded: Sequence[Recorded], model: PyTree, history: History) -> str | None:
    """What is wrong, and what to write; None where every recorded version leads to the model."""
    newest = recorded[-1]
    beyond = history.beyond(newest.version)
    if beyond:
        return f"the file knows version {print_stamp(beyond)}, which the history does not"
    plan = history.check(newest.tree, model, version=newest.version)
    if not plan.ok:
        return _changed(newest, plan, _proposed(newest, plan, model, history))
    for old in recorded[:-1]:
        plan = history.check(old.tree, model, version=old.version)
        if not plan.ok:
            at = print_stamp(old.version)
            return f"what was saved at version {at} no longer loads\n{_listed(plan.errors)}"
    return None


def _changed(newest: Recorded, plan: Plan, proposed: Version | None) -> str:
    before = print_stamp(newest.version)
    since = f"the model is not what it was at version {before}:\n{_listed(plan.errors)}\n\n"
    if proposed is None:
        return since + "Add the Version to the history that leads from the one to the other."
    code = "\n".join(f"    {row}" for row in _code(proposed))
    forgiven = "" if proposed.policy == Policy() else (
        "\n\nWhat its policy names has no value in what was saved before, or loses it: read it twice."
    )  # fmt: skip
    return f"{since}If that is meant, add this to the history:\n\n{code}{forgiven}"


def _listed(errors: Sequence[Finding]) -> str:
    lines = []
    for kind in KINDS:
        same = [finding for finding in errors if finding.kind == kind]
        specs = [_sides(finding) for finding in same]
        if any(specs):
            names = print_names([finding.name for finding in same], most=_SHOWN, facts=specs)
            lines.append(f"  {kind}: {names}")
        else:
            lines += [f"  {kind}: {finding.message}" for finding in same]
    return "\n".join(lines)


def _sides(finding: Finding) -> str:
    sides = (finding.found, finding.expected)
    return " -> ".join(print_spec(side) for side in sides if isinstance(side, jax.ShapeDtypeStruct))


# The version that is proposed.


def _proposed(newest: Recorded, plan: Plan, model: PyTree, history: History) -> Version | None:
    """The version that leads from the newest recorded one to the model; None where none was found."""
    number = history.newest[WHOLE] + 1

    def check(version: Version) -> Plan:
        return History(*history.versions, version).check(newest.tree, model, version=newest.version)

    rules = [rule for rule in plan.suggest() if rule.patterns]  # one without any is about a destination
    version = Version(number, rules=rules, policy=_forgiving(check(Version(number, rules=rules)).errors))
    return version if check(version).ok else None


def _forgiving(errors: Sequence[Finding]) -> Policy:
    """The policy that forgives what no rule mends: what is new, what is gone, what has another shape."""
    settings: dict[str, Mapping[str, str]] = {}
    for kind, manner in KINDS.items():
        names = [finding.name for finding in errors if finding.kind == kind]
        verdict = manner.verdicts[-1]
        if names and verdict in ("keep", "ignore"):
            settings[kind.value] = {each.pattern: verdict for each in group([(name, None) for name in names])}
    return Policy(**settings)


def _code(version: Version) -> list[str]:
    """A version as it is written, with a line for each rule where one line is too short."""
    whole = repr(version)
    if len(whole) <= _MOST:
        return [whole]
    lines = ["Version(", f"    {version.number},"]
    if version.rules:
        lines += ["    rules=[", *(f"        {rule!r}," for rule in version.rules), "    ],"]
    if version.policy != Policy():
        lines.append(f"    policy={version.policy.code},")
    return [*lines, ")"]
