"""Griffe extension: functions decorated by `takes_settings` show the settings as their parameters.

The decorator gives `fklit.steer` and its like their real signature when they are imported. The reference is read from
the sources, without importing them, so the same is done here: `**settings` is replaced by the fields of the settings
class, with their annotations, defaults and descriptions.
"""

from typing import Any

import griffe


class SettingsExtension(griffe.Extension):
    """Expands `**settings: Unpack[...]` of decorated functions."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look at all functions of a package once it is loaded, also those of classes."""
        for function in _functions(pkg):
            for decorator in function.decorators:
                if decorator.callable_path.endswith(".takes_settings"):
                    _expand(function, _settings_of(function, decorator))


def _functions(parent: griffe.Module | griffe.Class) -> list[griffe.Function]:
    found = []
    for member in parent.members.values():
        if isinstance(member, griffe.Function):
            found.append(member)
        elif isinstance(member, griffe.Module | griffe.Class):
            found += _functions(member)
    return found


def _settings_of(function: griffe.Function, decorator: griffe.Decorator) -> griffe.Class:
    arguments = decorator.value.arguments if isinstance(decorator.value, griffe.ExprCall) else []
    names = [item.canonical_path for item in arguments if isinstance(item, griffe.Expr)]
    if len(names) != 1:
        raise TypeError(f"{function.path}: takes_settings expected one settings class, got {decorator.value}.")
    settings = function.modules_collection[names[0]]
    assert isinstance(settings, griffe.Class)
    return settings


def _expand(function: griffe.Function, settings: griffe.Class) -> None:
    descriptions: dict[str, str] = {}
    fields: dict[str, griffe.Attribute] = {}
    for kind in [*reversed(settings.mro()), settings]:
        for section in kind.docstring.parse("google") if kind.docstring else []:
            if isinstance(section, griffe.DocstringSectionAttributes):
                descriptions |= {item.name: item.description for item in section.value}
        fields |= {name: item for name, item in kind.members.items() if isinstance(item, griffe.Attribute)}

    own = [item for item in function.parameters if item.kind is not griffe.ParameterKind.var_keyword]
    added = [
        griffe.Parameter(
            name,
            annotation=item.annotation,
            kind=griffe.ParameterKind.keyword_only,
            default=item.value,
        )
        for name, item in fields.items()
    ]
    function.parameters = griffe.Parameters(*own, *added)

    if function.docstring is None:
        raise TypeError(f"{function.path} expected a docstring, got none; write one.")
    sections = function.docstring.parsed
    arguments = [item for item in sections if isinstance(item, griffe.DocstringSectionParameters)]
    if not arguments:
        arguments = [griffe.DocstringSectionParameters([])]
        sections.append(arguments[0])
    for name, item in fields.items():
        arguments[0].value.append(
            griffe.DocstringParameter(
                name,
                description=descriptions[name],
                annotation=item.annotation,
                value=None if item.value is None else str(item.value),
            )
        )
