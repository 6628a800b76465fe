"""What template code runs in: Jinja's immutable sandbox, the names and filters it has, and nothing else.

The templates that come with notifyd run in one with shorter lookups: see `OwnTemplates`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen
from jinja2 import BaseLoader, BytecodeCache, ChainableUndefined, Undefined, nodes, pass_context
from jinja2.filters import do_dictsort
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from notifyd.model import Instant
from notifyd.render import bounds
from notifyd.render.locales import Formats, WrittenTime, plural_category
from notifyd.text import fit, one_line

MAX_RANGE: Final = 1000
"""How many rounds `range` gives a template."""

FIELDS_LIMIT: Final = 25
FIELD_NAME_LIMIT: Final = 100
FIELD_VALUE_LIMIT: Final = 1_000

LINE_LIMIT: Final = 300
"""How many characters of a value the filters `line` and `value` keep, unless told otherwise."""

TEXT_LIMIT: Final = 4000
"""How many characters of a sender's text the filter `text` keeps, unless told otherwise."""

CONTEXT_NAMES: Final = frozenset(
    {
        "event",
        "link",
        "mine",
        "can_decide",
        "signs_in",
        "own_request",
        "on_behalf_of",
        "level",
        "locale",
        "direction",
        "digest",
        "field",
        "message",
        "formats",
    }
)
"""What a template can name. Anything else is a fault at load, as a misspelt name would render empty."""

_DICT_METHODS: Final = frozenset({"items", "keys", "values", "get"})
_LOOP_COUNTS: Final = frozenset({"index", "index0", "first", "last", "length"})


class Missing(ChainableUndefined):
    """A member that an event lacks, or has as null: prints as nothing, and so does what is made of it.

    Nothing is greater or less than it, and its methods give nothing, so that neither `event.round > 1` nor
    `event.labels.items()` needs care.
    """

    __slots__ = ()


def _is_missing(value: Missing, *_args: object, **_kwargs: object) -> Missing:
    return value


def _is_false(_value: Missing, _other: object) -> bool:
    return False


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Missing, f"__{_name}__", _is_missing)
    setattr(Missing, f"__r{_name}__", _is_missing)
for _name in ("call", "neg", "pos", "abs", "round"):
    setattr(Missing, f"__{_name}__", _is_missing)
for _name in ("lt", "le", "gt", "ge"):
    setattr(Missing, f"__{_name}__", _is_false)
for _name, _zero in (("int", 0), ("float", 0.0)):
    setattr(Missing, f"__{_name}__", lambda _value, zero=_zero: zero)

_NOTHING: Final = Missing()
_PLAIN_VALUES: Final = (str, int, float, list)


class _Namespace(Namespace):
    """Prints as nothing of what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "namespace"


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, with nothing random, nothing that reads, lookups that suit events, and bounds."""

    intercepted_binops = bounds.METERED_OPERATORS
    concat = staticmethod(bounds.concat)
    transformer: type[NodeTransformer] = bounds.Bounding

    def __init__(self, loader: BaseLoader, compiled: BytecodeCache | None = None) -> None:
        super().__init__(
            loader=loader,
            bytecode_cache=compiled,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=Missing,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=-1,
            auto_reload=False,
        )
        # `dict` and `range` as usual; without `lipsum`, which is random.
        self.globals = {"range": _range, "namespace": _Namespace, "cycler": Cycler, "joiner": Joiner}
        self.filters = bounds.with_bounds(FILTERS, self.filters)
        self.tests["in"] = bounds.bounded_test(self.tests["in"])
        self.policies["json.dumps_function"] = bounds.dumps
        self.policies["json.dumps_kwargs"] = {"sort_keys": True, "ensure_ascii": False}

    def _generate(self, source: nodes.Template, name: str | None, *args: Any, **kwargs: Any) -> str:
        return super()._generate(self.transformer().visit(source), name, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        bounds.check_attribute(obj, attr)
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Nothing to wrap: there is no such method here."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        bounds.before_operator(operator, left, right)
        return bounds.sized(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An event's member before a method of the same name: `event.labels.items` may be a label."""
        if type(obj) is not dict:
            if type(obj) is Missing:
                return obj
            quick = type(obj) is LoopContext and attribute in _LOOP_COUNTS
            return getattr(obj, attribute) if quick else super().getattr(obj, attribute)
        value = obj.get(attribute)
        if value is not None:
            return value
        if attribute in _DICT_METHODS and attribute not in obj:
            return super().getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def call(
        __self,  # noqa: N805
        __context: Context,
        __obj: Any,
        *args: Any,
        _block_vars: object = None,
        _loop_vars: object = None,
        **kwargs: Any,
    ) -> Any:
        """`field`, which most calls are, needs no checks. The variables are for functions that want Jinja's
        context: none does."""
        if type(__obj) is Facts:
            return __obj(*args, **kwargs)
        bounds.spend(1 + bounds.weight((args, kwargs)) // bounds.UNITS_PER_STEP)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            bounds.before_method(__obj.__name__, owner, *args, **kwargs)
        elif type(__obj) is LoopContext:
            args = tuple(map(bounds.rounds, args))
        return bounds.sized(super().call(__context, __obj, *args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        quick = type(obj) is dict and type(argument) is str and not hasattr(dict, argument)
        value = obj.get(argument) if quick else super().getitem(obj, argument)
        if value is None or type(value) is Missing:
            bounds.spend()  # the filters that take a path can be given a long one
        return self.undefined(obj=obj, name=argument) if value is None else value


class OwnTemplates(Sandbox):
    """For the templates that come with notifyd: a member is looked up without asking whether that is safe.

    They name no member that leads anywhere else, and go once over an event. What they call and compute stays
    bounded as anyone's, because an operator's file that extends one gives it its words.
    """

    transformer = bounds.Plain

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A member of an event, or of what a loop tells. Plain values have none: `"x".title` is no title."""
        if type(obj) is dict:
            value = obj.get(attribute)
            return _NOTHING if value is None else value
        if type(obj) is LoopContext:
            return getattr(obj, attribute)
        nothing = type(obj) is Missing or isinstance(obj, _PLAIN_VALUES)
        return _NOTHING if nothing else super().getattr(obj, attribute)


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE:
        raise OverflowError(f"range() gives at most {MAX_RANGE} numbers")
    return numbers


def _finalize(value: Any) -> Any:
    """What an expression prints as: JSON's words for null (nothing), true and false."""
    if isinstance(value, str):
        return value if len(value) < LINE_LIMIT else bounds.sized(value)
    if value is None:
        return ""
    if value is True or value is False:
        return "true" if value else "false"
    return bounds.sized(value)


# --- fields ------------------------------------------------------------------------------------------------


@frozen
class Fact:
    """A field of a message; `code` where it is set in monospace, `lead` where above the text, as far as a
    channel can."""

    name: str
    value: str
    code: bool
    lead: bool
    at: Instant | None = None


class Facts:
    """What `field(name, value)` in a template collects. It prints nothing; an empty value is left out."""

    def __init__(self) -> None:
        self.found: list[Fact] = []

    def __call__(self, name: Any, value: Any, code: bool = False, lead: bool = False) -> str:
        if value is None or len(self.found) >= FIELDS_LIMIT:
            return ""
        text = value_line(value, FIELD_VALUE_LIMIT)
        if text:
            at = value.at if isinstance(value, WrittenTime) else None
            self.found.append(Fact(line(name, FIELD_NAME_LIMIT), text, bool(code), bool(lead), at))
        return ""


# --- filters -----------------------------------------------------------------------------------------------


def _localized(write: Callable[[Formats, Any], str]) -> Callable[[Context, Any], str]:
    """A filter in the reader's locale and zone; nothing stays nothing."""

    @pass_context
    def wrapper(context: Context, value: Any) -> str:
        return "" if value is None or isinstance(value, Undefined) else write(context["formats"], value)

    return wrapper


def line(value: Any, limit: int = LINE_LIMIT) -> str:
    """Text on one line, cut at the end of a word."""
    text = one_line(value if type(value) is str else _text(value))
    return text if len(text) * 2 <= limit else fit(text, limit)


def cut(value: Any, limit: int) -> str:
    """Text of at most `limit` characters, cut at the end of a word, with an ellipsis."""
    text = _text(value)
    return text if len(text) * 2 <= limit else fit(text, limit)


def value_line(value: Any, limit: int = LINE_LIMIT) -> str:
    """Any JSON value on one line: text as it is, a plain list with commas, all else as JSON."""
    if isinstance(value, str):
        return line(value, limit)
    if value is None or isinstance(value, Undefined):
        return ""
    if type(value) is int:
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return line(", ".join(value_line(item) for item in value), limit)
    return line(json.dumps(value, ensure_ascii=False, default=str), limit)


def text_block(value: Any, limit: int = TEXT_LIMIT) -> str:
    """Any JSON value as a paragraph of its own: text with its lines, all else as compact JSON."""
    return cut(value, limit) if isinstance(value, str) else value_line(value, limit)


@pass_context
def plural(context: Context, count: Any, *, other: str, **forms: str) -> str:
    """The words for so many things, by CLDR's categories in the language that the template's file is written in.

    `forms` are by category: `one`, and in some languages `zero`, `two`, `few` and `many`
    (https://cldr.unicode.org/index/cldr-spec/plural-rules). One that is not given is `other`.
    """
    return forms.get(plural_category(count, (context.name or "").split(".")[1]), other)


def short_hash(value: Any) -> str:
    """`sha256:` and the first twelve digits: enough to compare by eye."""
    algorithm, mark, digits = str(value or "").rpartition(":")
    return f"{algorithm}{mark}{digits[:12]}"


def _text(value: Any) -> str:
    return value if type(value) is str else "" if value is None else str(value)


def dictsort(value: Any, *args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
    """Jinja's own, but nothing for what is no object: values come from events."""
    return do_dictsort(value, *args, **kwargs) if isinstance(value, Mapping) else []


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "datetime": _localized(Formats.datetime),
    "date": _localized(Formats.date),
    "time": _localized(Formats.time),
    "number": _localized(Formats.number),
    "duration": _localized(Formats.duration),
    "plural": plural,
    "short_hash": short_hash,
    "line": line,
    "cut": cut,
    "value": value_line,
    "text": text_block,
    "dictsort": dictsort,
}
"""The filters beside Jinja's own."""
