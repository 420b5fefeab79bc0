"""All capabilities of the server. The order decides inside a stage (`router/feature.py`, Stage)."""

from __future__ import annotations

from typing import Final

from router.feature import Feature
from router.features import (
    account,
    activity,
    administration,
    archive,
    avatars,
    blocking,
    bookmarks,
    bytestreams,
    carbons,
    channel_search,
    delivery,
    devices,
    disco,
    displayed,
    external_services,
    groups,
    guests,
    inbox,
    invites,
    offline,
    pep,
    ping,
    presence,
    private,
    privileges,
    push,
    reporting,
    restrictions,
    rooms,
    roster,
    search,
    session,
    shared_groups,
    strangers,
    subscriptions,
    time,
    upload,
    vcard,
    version,
)

ALL: Final[tuple[Feature, ...]] = (
    restrictions.feature,  # who may not do anything is asked first
    blocking.feature,
    strangers.feature,
    displayed.feature,  # what is for the own server alone goes no further
    groups.feature,  # what is said in rooms is for no session
    privileges.feature,  # what is not its user's own business is dealt with here
    pep.feature,  # notifications of contacts are not kept; probes ask for items, too
    archive.feature,
    roster.feature,
    shared_groups.feature,  # subscriptions that nobody asks for
    avatars.feature,  # presence has the hash of the picture before anybody sees it
    subscriptions.feature,  # takes subscription stanzas before presence sees them
    presence.feature,
    push.feature,  # of what has passed the archive's screens
    carbons.feature,
    offline.feature,  # keeps what `delivery` would send back
    delivery.feature,
    devices.feature,
    disco.feature,
    ping.feature,
    external_services.feature,
    version.feature,
    time.feature,
    activity.feature,
    account.feature,
    bookmarks.feature,
    private.feature,
    reporting.feature,
    inbox.feature,
    vcard.feature,
    rooms.feature,
    channel_search.feature,
    search.feature,
    bytestreams.feature,
    upload.feature,
    administration.feature,
    invites.feature,
    session.feature,
    guests.feature,  # when a session has ended for everybody else, so does its account
)

disco.tell_features(ALL)
