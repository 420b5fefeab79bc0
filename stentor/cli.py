"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; never a traceback.

Commands are in stentor/commands/. A command raises `Failed` for what the operator shall read; wrong configuration
comes as cluster.config.ConfigError; everything else is a bug and is told in one line.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from stentor.commands import (
    archive,
    audit,
    blocklist,
    check,
    cluster,
    config,
    database,
    dev,
    gateways,
    invite,
    job,
    message,
    processes,
    report,
    room,
    roster,
    s2s,
    session,
    stats,
    token,
    user,
)
from stentor.failure import Failed


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="stentor")
def cli() -> None:
    """Stentor, a clustered XMPP server."""


for command in (dev.dev, processes.run, processes.c2s, processes.router, gateways.sms, stats.stats, job.announce):
    cli.add_command(command)
for group in (
    s2s.s2s, user.user, invite.invite, report.report, blocklist.blocklist, session.session, room.room, cluster.cluster,
    database.db, check.check, token.token, audit.audit,
    roster.roster, message.message, config.config, config.log, config.tls, job.job, archive.archive,
):  # fmt: skip
    cli.add_command(group)


def main() -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        code = cli.main(arguments, prog_name="stentor", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.Abort:
        click.echo("stentor: interrupted", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Failed as error:
        click.echo(f"stentor: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has no reader
        return 1
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        click.echo(f"stentor: a bug: {type(error).__name__}: {error} ({place}); please report it", err=True)
        return 1
