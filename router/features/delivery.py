"""Temporary."""
from router.feature import Feature, Stage, At
from router.events import SessionClosed
from xmpp import ns
feature = Feature("delivery")

@feature.on_message(Stage.IN_DELIVER)
def deliver(turn, stanza):
    _, _, res = stanza.to.partition("/")
    s = turn.entity.sessions.get(res)
    if s is not None:
        turn.deliver(s, stanza); return True
    for s in turn.entity.sessions.values():
        if s.presence is not None and s.priority >= 0:
            turn.deliver(s, stanza)
    return True

@feature.on_presence(Stage.OUT_ACT)
def act(turn, stanza):
    if stanza.to is None:
        turn.session.presence = stanza if stanza.type is None else None
        turn.touch(turn.session)
    return True

@feature.on_iq("get", ns.PING, "ping", at=At.SERVER)
@feature.on_iq("get", ns.PING, "ping", at=At.OWN)
def ping(turn, iq):
    turn.answer(iq)
