"""Policies as files: TOML that is read, and TOML to be written where a report advises a policy.

A file of a policy holds nothing but words. What is written says what the report's code says, no more.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from treeload.cli.say import Misuse

if TYPE_CHECKING:
    from treeload import Plan, Policy

_UNQUOTED = re.compile(r"\s*(?P<key>[^\s\"'#=\[][^\"'#=]*?)\s*=\s*(?P<verdict>.*?)\s*")


def policy(filename: str | None) -> Policy:
    """The policy that a TOML file holds: for each setting a verdict, or a table of patterns and verdicts."""
    from treeload import Policy, RuleError

    if filename is None:
        return Policy()
    where = f"--policy {filename}"
    try:
        with open(filename, encoding="utf-8") as file:
            text = file.read()
        said = tomllib.loads(text)
    except OSError as error:
        raise Misuse(f"{where}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise Misuse(f"{where}: no TOML: {error}{_meant(text)}") from error
    except UnicodeDecodeError as error:
        raise Misuse(f"{where}: no TOML: it is no UTF-8 text") from error
    known = [field.name for field in fields(Policy) if field.init]
    for key, value in said.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            meant = f"; {near[0]!r} is near" if near else ""
            raise Misuse(f"{where}: a policy has no {key!r}{meant}: it has {', '.join(known)}")
        if isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()):
            raise Misuse(
                f"{where}: in [{key}] patterns need quotes, as in {_QUOTED}: a dot parts TOML's keys"
            )
    try:
        return Policy(**said)
    except RuleError as error:
        raise Misuse(f"{where}: {error}") from error


_QUOTED = '"net/**" = "keep"'


def _meant(text: str) -> str:
    """What is to be written in place of the first thing that is no TOML, where it is one of the usual."""
    if (pasted := _setting(text.strip())) is not None:
        return f"; it is Python, which is written in TOML as\n{_toml(dict([pasted]), {})}"
    for line in text.splitlines():
        found = _UNQUOTED.fullmatch(line)
        if found is not None and re.search(r"[*/?{}]", found["key"]):
            return f"; patterns need quotes: {_quoted(found['key'])} = {found['verdict']}"
    return ""


def advised(plan: Plan, held: Policy) -> str:
    """The policies that the plan's report advises, as a file for ``--policy``; empty where it advises none.

    It holds what the policy of the plan held, too: a file cannot have a table twice.

    Of what can be done in several ways nothing is done as the file stands: the ways are comments.
    """
    from treeload._leaves.spec import is_abstract
    from treeload._reports.going_on import GoingOn
    from treeload._reports.problems import problems
    from treeload._reports.ways import ways

    going_on = GoingOn(plan, plan.noted_errors)
    forgiving = going_on.may_forgive
    asked = ((plan, going_on.rules, True), (going_on.after, going_on.left, forgiving))
    chosen: dict[str, Any] = {}
    open_: dict[str, Any] = {}
    for decisions, noted, forgives in asked:
        for same in problems(decisions, noted).values():
            if same.listed[0].verdict != "error":
                continue
            codes = ["".join(way.code.broken) for way in ways(same, forgiving=forgives) if way.code.broken]
            for setting, value in filter(None, map(_setting, codes)):
                _put(chosen if len(codes) == 1 else open_, setting, value)
    if not chosen and not open_:
        return ""
    head = "as a file for --policy"
    head += ", beside what is said first" if going_on.settled else ""
    for setting, value in _settings(held).items():
        head += "" if ", with" in head else ", with what it holds now"
        _put(chosen, setting, value)
    head += "; take the # from what you choose" if open_ else ""
    keeps = any(
        "keep" in value.values() for value in (*chosen.values(), *open_.values()) if isinstance(value, dict)
    )
    text = _toml(chosen, open_)
    if keeps and any(map(is_abstract, plan.tree.values)):
        text += "\n# to keep needs values, and the model is abstract: have --into make one with its values"
    return "\n".join((head, *(f"  {line}".rstrip() for line in text.splitlines())))


def _setting(code: str) -> tuple[str, Any] | None:
    """The setting of a policy, and its value, that a piece of code is; None for other code."""
    try:
        call = ast.parse(code, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Policy"):
            return None
        ((setting, value),) = ((each.arg, ast.literal_eval(each.value)) for each in call.keywords)
    except (SyntaxError, ValueError):
        return None
    # Where there are too many patterns for a page, the code has three dots in place of them.
    return (setting, value) if isinstance(setting, str) and isinstance(value, (dict, tuple, str)) else None


def _settings(policy: Policy) -> dict[str, Any]:
    """What a policy says of its own."""
    own = (field for field in fields(policy) if field.init and getattr(policy, field.name) != field.default)
    return {field.name: getattr(policy, field.name) for field in own}


def _put(settings: dict[str, Any], setting: str, value: Any) -> None:
    """Says more of a setting, behind what is said of it already: the first pattern that matches wins."""
    known = settings.setdefault(setting, value)
    if known is value:
        return
    if isinstance(known, dict):
        settings[setting] = {**known, **{k: v for k, v in _table(value).items() if k not in known}}
    else:
        settings[setting] = tuple(dict.fromkeys((*known, *value)))


def _table(value: Any) -> Mapping[str, str]:
    return {"**": value} if isinstance(value, str) else value


def _toml(settings: Mapping[str, Any], open_: Mapping[str, Any]) -> str:
    """Settings as TOML, those that are ``open_`` as comments; keys before tables, as TOML has it.

    What is open of a setting comes before what is set of it: the first pattern that matches wins.
    """
    from treeload import Policy

    keys: list[str] = []
    tables: list[str] = []
    for setting in sorted({*settings, *open_}, key=[field.name for field in fields(Policy)].index):
        value, more = settings.get(setting), open_.get(setting)
        if isinstance(value, dict) or isinstance(more, dict):
            set_, free = _table(value or {}), more or {}
            rows = [f"# {_pair(*pair)}" for pair in free.items() if pair[0] not in set_]
            ors = {name: f"  # or {_quoted(free[name])}" for name in set_ if name in free}
            rows += [_pair(*pair) + ors.get(pair[0], "") for pair in set_.items()]
            tables += (f"[{setting}]", *rows)
        elif isinstance(value, tuple) and more is not None:
            rows = [
                *(f"    {_quoted(each)}," for each in value),
                *(f"    # {_quoted(each)}," for each in more),
            ]
            keys += (f"{setting} = [", *rows, "]")
        else:
            keys.append(
                f"{'# ' if value is None else ''}{setting} = {_value(more if value is None else value)}"
            )
    return "\n".join((*keys, *tables))


def _pair(pattern: str, verdict: str) -> str:
    return f"{_quoted(pattern)} = {_quoted(verdict)}"


def _value(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else f"[{', '.join(map(_quoted, value))}]"


def _quoted(text: str) -> str:
    """A text as TOML has it, which is JSON's way but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
