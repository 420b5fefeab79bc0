"""`stentor check`: what an operator runs first when something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import click

from stentor.client import Api, Place, connects
from stentor.failure import Failed, load_config

if TYPE_CHECKING:
    from stentor.checks.findings import Finding


@click.group()
def check() -> None:
    """Look for what is wrong: config, dns, tls, federation, features.

    Of a domain every line begins with ok, warn or fail. A fail names the cause and what to do; with one, the exit
    code is 1.
    """


def _configured(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command the options that say which configuration it is about."""
    command = click.option(
        "--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Override one setting"
    )(command)
    return click.option("--config", "config_file", metavar="FILE", help="Configuration file")(command)


@check.command()
@_configured
def config(config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Check the configuration and print every setting, its value and where it comes from."""
    loaded = load_config(config_file, overrides)
    from cluster.config import is_secret, keys

    for key, field in keys().items():
        section, name = key.split(".")
        value = getattr(getattr(loaded, section), name)
        shown = ("(set)" if value else "(not set)") if is_secret(key) else value
        click.echo(f"{key} = {shown}  # {loaded.source_of(key)}; {field.description}")


@check.command()
@click.argument("domain")
@_configured
def dns(domain: str, config_file: str | None, overrides: tuple[str, ...]) -> int:
    """What the DNS says of DOMAIN, for servers and for clients; of a domain of ours, what is missing in its zone."""
    loaded = load_config(config_file, overrides)
    from stentor.checks.federation import check_dns

    return _tell(check_dns(loaded, _domain(domain)))


@check.command()
@click.argument("domain")
@_configured
def tls(domain: str, config_file: str | None, overrides: tuple[str, ...]) -> int:
    """The certificates of DOMAIN: in our files, if it is ours, and as they are shown."""
    loaded = load_config(config_file, overrides)
    from stentor.checks.federation import check_tls

    return _tell(check_tls(loaded, _domain(domain)))


@check.command()
@click.argument("domain")
@click.option("--from", "from_", metavar="OUR_DOMAIN", help="For whom to look [default: the first of server.domains]")
@_configured
def federation(domain: str, from_: str | None, config_file: str | None, overrides: tuple[str, ...]) -> int:
    """Would a stream with the server of DOMAIN come about, and why not?

    Of a domain of ours: what another server sees of it, as far as this machine is outside.
    """
    loaded = load_config(config_file, overrides)
    domain = _domain(domain)
    from stentor.checks.federation import check_federation, default_from

    return _tell(check_federation(loaded, domain, _domain(from_) if from_ else default_from(loaded, domain)))


@check.command()
@click.argument("domain", required=False)
@click.option("--host", metavar="HOST", help="Where clients connect [default: of the configuration]")
@click.option("--port", type=int, help="Port for STARTTLS")
@click.option("--tls-port", type=int, help="Port for direct TLS")
@click.option("--component-port", type=int, help="Port for components")
@click.option("--web-port", type=int, help="Port of https [default: 443]")
@connects
def features(
    api: Api,
    domain: str | None,
    host: str | None,
    port: int | None,
    tls_port: int | None,
    component_port: int | None,
    web_port: int | None,
) -> int:
    """What DOMAIN has of the compliance suite (XEP-0479, Advanced Server), tried out with two accounts of its own.

    Each line begins with yes or no; a no says what is missing. With one, the exit code is 1.
    """
    from stentor.checks.features import check_features
    from stentor.checks.visitor import Unexpected

    known = api.place
    place = Place(
        host or known.host, domain or known.domain, port or known.port, tls_port or known.tls_port,
        component_port or known.component_port, web_port or known.web_port,
    )  # fmt: skip
    code = 0
    try:
        for answer in check_features(api, place):
            click.echo(str(answer))
            code = max(code, int(bool(answer.problem)))
    except (Unexpected, OSError) as problem:
        raise Failed(f"{place.host} port {place.port}: nobody can sign in: {problem}") from None
    return code


def _domain(text: str) -> str:
    from s2s.domains import ip_literal, to_ascii
    from xmpp.errors import JidError
    from xmpp.jid import JID

    try:
        jid = JID.parse(text)
        if ip_literal(jid.domain) is None:
            to_ascii(jid.domain)
    except (JidError, ValueError) as problem:
        raise click.UsageError(f"{text!r} is not a domain: {problem}") from None
    if jid.local or jid.resource:
        raise click.UsageError(f"{text!r} is not a domain; give what is behind the @: {jid.domain}")
    return jid.domain


def _tell(findings: AsyncIterator[Finding]) -> int:
    """Print line by line; 1 if anything failed."""

    async def tell() -> int:
        code = 0
        async for finding in findings:
            click.echo(str(finding))
            code = max(code, int(finding.level == "fail"))
        return code

    return asyncio.run(tell())
