"""Does a thing that a plugin brings have the shape that `notifyd.plugin` documents? And words for what has not."""

from __future__ import annotations

import importlib.resources
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from notifyd.config import units
from notifyd.config.settings import common_options
from notifyd.config.structure import Structurer, options_of
from notifyd.plugin import ChannelType, PluginConfig, RuleFunction, TemplateSource
from notifyd.rules.expression import KEPT, by_keyword_alone
from notifyd.rules.rules import NATIVE_FUNCTIONS

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


def wrong_item(item: object) -> str | None:
    """What is wrong with it, None where nothing is."""
    try:
        match item:
            case ChannelType():
                _check_channel_type(item)
            case TemplateSource():
                _check_template_source(item)
            case RuleFunction():
                _check_rule_function(item)
            case PluginConfig():
                _check_options(item.config, "PluginConfig: ")
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _check_channel_type(item: ChannelType) -> None:
    if not _matches(units.CHANNEL_NAME, item.name):
        raise ValueError("a ChannelType's name is 1 to 63 of the characters a-z 0-9 _ -")
    where = f'ChannelType "{item.name}": '
    _check_options(item.config, where)
    taken = sorted(options_of(item.config).keys() & {"type", *common_options(item)})
    if taken:
        raise ValueError(f'{where}the option "{taken[0]}" is one that every channel has')
    if not callable(item.open):
        raise TypeError(f"{where}open must be callable, not {described(item.open)}")
    _check_reach(item, where)
    if item.own_body is not None and not callable(item.own_body):
        raise TypeError(f"{where}own_body must be callable, not {described(item.own_body)}")
    if item.rate_limit is not None:
        _check_rate(item.rate_limit, where)


def _check_options(config: object, where: str) -> None:
    if not isinstance(config, type) or not attrs.has(config):
        raise TypeError(f"{where}config must be an attrs class, not {described(config)}")
    try:
        Structurer().check_class(config)
    except TypeError as error:
        raise TypeError(f"{where}{error}") from error


def _check_reach(item: ChannelType, where: str) -> None:
    for name in ("personal", "answers", "for_programs", "addressed", "gate", "fields"):
        value: object = getattr(item, name)
        by_config = name in ("personal", "answers")
        if not isinstance(value, bool) and not (by_config and callable(value)):
            wanted = "a bool or callable" if by_config else "a bool"
            raise TypeError(f"{where}{name} must be {wanted}, not {described(value)}")


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _check_rate(text: object, where: str) -> None:
    try:
        units.parse_rate(text if isinstance(text, str) else "")
    except ValueError as error:
        raise ValueError(f"{where}rate_limit {error}") from error


def _check_template_source(item: TemplateSource) -> None:
    where = f'TemplateSource "{item.package}/{item.path}": '
    try:
        folder = importlib.resources.files(item.package).joinpath(item.path)
    except Exception as error:
        raise ValueError(f"{where}the package cannot be imported: {said(error)}") from error
    if not folder.is_dir():
        raise ValueError(f"{where}there is no such folder")


def _check_rule_function(item: RuleFunction) -> None:
    if not _matches(_IDENTIFIER, item.name):
        raise ValueError("a RuleFunction's name is an identifier of at most 63 characters")
    where = f'RuleFunction "{item.name}": '
    if not callable(item.function):
        raise TypeError(f"{where}function must be callable, not {described(item.function)}")
    if item.name in KEPT or item.name in NATIVE_FUNCTIONS:
        raise ValueError(f"{where}CEL has this name for something of its own: take another")
    _check_is_called(item.function, where)


def _check_is_called(function: Callable[..., Any], where: str) -> None:
    """Does it give its value when it is called, with nothing but arguments by position?"""
    for called in (function, getattr(function, "__call__", None)):  # noqa: B004 - an object may be called too
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise TypeError(f"{where}function must not be async")
        if inspect.isgeneratorfunction(called):
            raise TypeError(f"{where}function must return its value, and not yield it")
    if named := by_keyword_alone(function):
        raise TypeError(f"{where}rules give arguments by position, and function needs {named[0]} by keyword")


def described(value: object) -> str:
    """What stands where something else belongs, in words that show nothing of it."""
    if value is None:
        return "None"
    return (
        f"the class {value.__name__}"
        if isinstance(value, type)
        else f"a value of type {type(value).__name__}"
    )


def said(error: BaseException) -> str:
    """What was raised: its type, and the first line of its text."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
