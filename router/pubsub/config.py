"""How a node is: its configuration, and the forms in which it is told, set and asked for (XEP-0060, 8.2, 16.4.4).
Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any, Final

from router import options
from router.options import Kind
from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import Conflict, NotAcceptable
from xmpp.xml import element

MAX: Final = -1  # as many items as the service keeps
_PREFIX: Final = "pubsub#"
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The names are those of `pubsub#…` (16.4.4). `max_items` may be MAX; `item_expire` is seconds, 0: never."""

    title: str = ""
    description: str = ""
    type: str = ""
    language: str = ""
    contact: tuple[str, ...] = ()
    access_model: str = "presence"
    roster_groups_allowed: tuple[str, ...] = ()
    publish_model: str = "publishers"
    subscribe: bool = True
    persist_items: bool = True
    max_items: int = 1
    item_expire: int = 0
    max_payload_size: int = 0  # bytes; 0: as much as the service takes
    deliver_notifications: bool = True
    deliver_payloads: bool = True
    notify_config: bool = False
    notify_delete: bool = True
    notify_retract: bool = True
    notification_type: str = "headline"
    presence_based_delivery: bool = False
    purge_offline: bool = False
    send_last_published_item: str = "on_sub_and_presence"
    itemreply: str = "publisher"
    archive: bool = False  # XEP-0442; not registered with the form

    @property
    def sends_last_on_presence(self) -> bool:
        """Whether who comes online and wants notifications gets the newest item."""
        return self.send_last_published_item == "on_sub_and_presence"


# What a node of a service is where nobody says anything else (4.5: access "SHOULD be" open).
SERVICE: Final = NodeConfig(
    access_model="open", max_items=100, send_last_published_item="on_sub", archive=True, notify_config=True
)
_PRIVATE: Final = NodeConfig(access_model="whitelist", max_items=MAX, send_last_published_item="never")
# Nodes that are their owner's own business, also where a client forgets to say so.
_KNOWN: Final = {
    ns.BOOKMARKS: _PRIVATE,
    ns.BOOKMARKS_OLD: NodeConfig(access_model="whitelist"),
    ns.DISPLAYED: _PRIVATE,
}


def initial(node: str, is_service: bool) -> NodeConfig:
    """How a new node is where its maker says nothing."""
    return SERVICE if is_service else _KNOWN.get(node, NodeConfig())


def _number(values: tuple[str, ...]) -> int:
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise NotAcceptable("A number is written in digits.")
    return int(text)


def _or_max(most: int, values: tuple[str, ...]) -> int:
    """`max` stands for as much as the service allows."""
    return most if values == ("max",) else _number(values)


def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    options.text(values)
    return values


_ACCESS: Final = ("open", "presence", "roster", "authorize", "whitelist")
_PUBLISH: Final = ("publishers", "subscribers", "open")
_LAST: Final = ("never", "on_sub", "on_sub_and_presence")
_STYLE: Final = ("headline", "normal")
_REPLY: Final = ("owner", "publisher")
_OF_INTEGER: Final = element("validate", ns.VALIDATE, {"datatype": "xs:integer"}, element("range", None, {"min": "0"}))
_KINDS: Final = {
    "title": Kind("text-single", "Name", options.text),
    "description": Kind("text-single", "Description", options.text),
    "type": Kind("text-single", "Namespace of the payload", options.text),
    "language": Kind("text-single", "Language of what is published", options.text),
    "contact": Kind("jid-multi", "Whom to ask about the node", _texts),
    "access_model": Kind("list-single", "Who may subscribe and read", options.one_of(*_ACCESS), _ACCESS),
    "roster_groups_allowed": Kind("text-multi", "Which groups of the roster may, if those", _texts),
    "publish_model": Kind("list-single", "Who may publish", options.one_of(*_PUBLISH), _PUBLISH),
    "subscribe": Kind("boolean", "One may subscribe", options.boolean),
    "persist_items": Kind("boolean", "Items are kept", options.boolean),
    "max_items": Kind("text-single", "How many are ('max': as many as can be)", partial(_or_max, MAX)),
    "item_expire": Kind("text-single", "For how many seconds ('max': for ever)", partial(_or_max, 0)),
    "max_payload_size": Kind("text-single", "Most bytes of an item, 0: as much as can be", _number, (), _OF_INTEGER),
    "deliver_notifications": Kind("boolean", "Subscribers are told", options.boolean),
    "deliver_payloads": Kind("boolean", "They are sent the payload, too", options.boolean),
    "notify_config": Kind("boolean", "They are told of a new configuration", options.boolean),
    "notify_delete": Kind("boolean", "They are told when the node goes", options.boolean),
    "notify_retract": Kind("boolean", "They are told when items go", options.boolean),
    "notification_type": Kind("list-single", "Type of the messages", options.one_of(*_STYLE), _STYLE),
    "presence_based_delivery": Kind("boolean", "To those alone who are there", options.boolean),
    "purge_offline": Kind("boolean", "Items go with their publisher", options.boolean),
    "send_last_published_item": Kind("list-single", "When the last item is sent", options.one_of(*_LAST), _LAST),
    "itemreply": Kind("list-single", "Whom replies go to", options.one_of(*_REPLY), _REPLY),
    "archive": Kind("boolean", "What was published stays in the archive", options.boolean),
}
_OF_ACCOUNTS: Final = frozenset({"roster_groups_allowed", "purge_offline"})  # what a service cannot do
_OF_ROSTERS: Final = frozenset({"presence", "roster"})
_VARS: Final = {"archive": "x-stentor_archive"}  # XEP-0068, 3.4


def _var(name: str) -> str:
    return _VARS.get(name) or f"{_PREFIX}{name}"


def _names(is_service: bool) -> list[str]:
    return [name for name in _KINDS if not (is_service and name in _OF_ACCOUNTS)]


def to_form(config: NodeConfig, is_service: bool) -> bytes:
    """8.2.1: the form, filled in as the node is."""
    shown = []
    for name in _names(is_service):
        kind, value = _KINDS[name], getattr(config, name)
        if (name == "max_items" and value == MAX) or (name == "item_expire" and not value):
            value = "max"
        if name == "access_model" and is_service:
            kind = kind._replace(options=tuple(model for model in _ACCESS if model not in _OF_ROSTERS))
        shown.append(options.shown(kind, _var(name), value))
    return forms.to_fill_in(ns.PUBSUB_CONFIG, shown)


def from_form(config: NodeConfig, form: Form, is_service: bool) -> NodeConfig:
    """What is left out stays as it is, what is not known is not looked at. Raises NotAcceptable."""
    given = dict(form.fields)
    changed = {_name: _KINDS[_name].read(given[_var(_name)]) for _name in _names(is_service) if _var(_name) in given}
    if is_service and changed.get("access_model") in _OF_ROSTERS:
        # 8.1.2
        raise NotAcceptable(
            "A service has no roster.", application=element("unsupported-access-model", ns.PUBSUB_ERRORS)
        )
    return replace(config, **changed)


def of_options(config: NodeConfig, form: Form, is_service: bool) -> NodeConfig:
    """7.1.5: a node that is made by publishing, with these options. What is not known is not met."""
    check_known(form, is_service)
    return from_form(config, form, is_service)


def check(config: NodeConfig, form: Form, is_service: bool) -> None:
    """7.1.5: the options of a publication are preconditions. Raises Conflict where the node is not so."""
    check_known(form, is_service)
    if from_form(config, form, is_service) != config:
        raise _not_met("The node is not as the options say.")


def check_known(form: Form, is_service: bool) -> None:
    """An option that nobody knows cannot be met."""
    known = {_var(name) for name in _names(is_service)}
    for var, _ in form.fields:
        if var not in known:
            raise _not_met(f"The service has no option '{var[:100]}'.")


def _not_met(text: str) -> Conflict:
    return Conflict(text, application=element("precondition-not-met", ns.PUBSUB_ERRORS))


def to_options(config: NodeConfig) -> dict[str, list[str]]:
    """The fields of the form with their values, for another server."""
    found = {}
    for name in _names(is_service=False):
        value = getattr(config, name)
        if (name == "max_items" and value == MAX) or (name == "item_expire" and not value):
            value = "max"
        found[_var(name)] = list(options.shown(_KINDS[name], _var(name), value).values)
    return found


def to_json(config: NodeConfig) -> str:
    """As the database keeps it: what is not as it is by itself."""
    plain = asdict(NodeConfig())
    return json.dumps({name: value for name, value in asdict(config).items() if list_of(value) != list_of(plain[name])})


def list_of(value: Any) -> Any:
    """JSON knows no tuples."""
    return list(value) if isinstance(value, tuple) else value


def from_json(known: Mapping[str, Any]) -> NodeConfig:
    """What other versions know, and this one does not, is left out. Equal ones are one: most accounts have the same."""
    names = {field.name for field in fields(NodeConfig)}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return _interned(NodeConfig(**{name: value for name, value in values.items() if name in names}))


@lru_cache(maxsize=1_024)
def _interned(config: NodeConfig) -> NodeConfig:
    return config


def meta_data(config: NodeConfig, creator: str, owners: tuple[str, ...], subscribers: int) -> Form:
    """5.4: what everybody may know."""
    told = {
        "title": (config.title,), "description": (config.description,), "type": (config.type,),
        "language": (config.language,), "contact": config.contact, "creator": (creator,), "owner": owners,
        "access_model": (config.access_model,), "publish_model": (config.publish_model,),
        "max_items": ("max" if config.max_items == MAX else str(config.max_items),),
        "num_subscribers": (str(subscribers),),
    }  # fmt: skip
    known = ((f"{_PREFIX}{name}", tuple(filter(None, values))) for name, values in told.items())
    return Form(ns.PUBSUB_META_DATA, tuple((var, values) for var, values in known if values))
