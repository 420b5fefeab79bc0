"""The gateways, which run beside a cluster as external components: `stentor sms`."""

from __future__ import annotations

import click

from stentor.failure import misconfigured


@click.command()
@click.option("--config", "config_file", metavar="FILE", required=True, help="Configuration file of the gateway")
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Override one setting")
def sms(config_file: str, overrides: tuple[str, ...]) -> int:
    """Run the SMS gateway, an external component of any XMPP server."""
    from cluster import process
    from cluster.config import ConfigError, load
    from s2s.gateways.sms.service import application
    from s2s.gateways.sms.settings import SmsSettings

    try:
        settings = load(config_file, overrides, None, SmsSettings)
    except ConfigError as error:
        raise misconfigured(error) from None
    return process.main(application, settings)
