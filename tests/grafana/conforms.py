"""Reads dashboards with Grafana's published types (grafana-foundation-sdk) and reports every key and value unknown to them.

The types read leniently: a key that they do not know is dropped in silence. So what they have read is written again, and whatever is
missing or different then is a fault; and every value must be of the type that its field is declared with.
"""

import enum
import json
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard


# By DataTransformerConfig.to_json.
KEYS_OF_TRANSFORMATION = {"id", "disabled", "filter", "topic", "options"}


def lost(given, kept, path):
    """Keys and values that were lost; defaults added by the types are not faults."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key} is unknown"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept)):
            yield from lost(one, other, f"{path}[{index}]")
    elif given != kept:
        yield f"{path} is {given!r}, read as {kept!r}"


def fits(value, declared):
    """Whether a value has the declared type; the content of the package's objects is not checked here."""
    origin = typing.get_origin(declared)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in typing.get_args(declared))
    if origin is typing.Literal:
        return value in typing.get_args(declared)
    if origin is list:
        return isinstance(value, list) and all(fits(one, typing.get_args(declared)[0]) for one in value)
    if origin is dict:
        of_keys, of_values = typing.get_args(declared)
        return isinstance(value, dict) and all(fits(k, of_keys) and fits(v, of_values) for k, v in value.items())
    if declared in (object, typing.Any):
        return True
    # The only type that the package reads as plain JSON.
    if declared is dashboard.DataTransformerConfig and isinstance(value, dict):
        return {"id", "options"} <= value.keys() and value.keys() <= KEYS_OF_TRANSFORMATION
    if declared is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(declared, type) and issubclass(declared, enum.Enum):
        return value in [member.value for member in declared]
    return isinstance(value, declared)


def mistyped(value, path):
    """Fields with a value of another type, at any depth."""
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from mistyped(one, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from mistyped(one, f"{path}.{key}")
    elif type(value).__module__.startswith("grafana_foundation_sdk") and not isinstance(value, enum.Enum):
        declared = typing.get_type_hints(type(value))
        for name, one in vars(value).items():
            if name in declared and not fits(one, declared[name]):
                yield f"{path}.{name} is {one!r}, not {declared[name]}"
            yield from mistyped(one, f"{path}.{name}")


def faults(text):
    """All faults of one dashboard."""
    given = json.loads(text)
    read = dashboard.Dashboard.from_json(given)
    kept = json.loads(JSONEncoder().encode(read))
    yield from lost(given, kept, given.get("uid", "?"))
    yield from mistyped(read, given.get("uid", "?"))


def main():
    """Prints the faults of each file; fails if there are any."""
    plugins.register_default_plugins()
    found = [fault for path in sys.argv[1:] for fault in faults(open(path, encoding="utf-8").read())]
    print("\n".join(found) if found else f"{len(sys.argv) - 1} dashboards conform")
    sys.exit(bool(found))


main()
