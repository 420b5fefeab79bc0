"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; never a traceback.

Commands are in stentor/commands/. A command raises `Failed` for what the operator shall read; wrong configuration
comes as cluster.config.ConfigError; everything else is a bug and is told in one line.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module

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
    trace,
    user,
)
from stentor.failure import Failed


class Later(click.Group):
    """A group of commands whose module is loaded when one of them is used: it is heavy."""

    def __init__(self, name: str, help: str, module: str, group: str) -> None:
        super().__init__(name, help=help)
        self._module, self._name = module, group

    def _group(self) -> click.Group:
        group: click.Group = getattr(import_module(f"stentor.commands.{self._module}"), self._name)
        return group

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        return self._group().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        return self._group().get_command(ctx, cmd_name)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="stentor")
def cli() -> None:
    """Stentor, a clustered XMPP server."""


for command in (
    dev.dev, processes.run, processes.c2s, processes.router, gateways.sms, stats.stats, trace.trace, job.announce,
):  # fmt: skip
    cli.add_command(command)
for group in (
    s2s.s2s, user.user, invite.invite, report.report, blocklist.blocklist, session.session, room.room, cluster.cluster,
    database.db, check.check, token.token, audit.audit, roster.roster, message.message, config.config, config.log,
    config.tls, job.job, archive.archive,
    Later("import", "Bring in what another server has: prosody, ejabberd, xep0227.", "importing", "import_"),
    Later("export", "Write what accounts have: xep0227.", "exporting", "export"),
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
