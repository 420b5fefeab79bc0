"""`stentor import`: accounts, rooms and archives from other servers (docs/moving.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stentor.client import Api, finds
from stentor.failure import Failed

if TYPE_CHECKING:
    from stentor.moving.sending import Sender, Summary
    from stentor.moving.things import Source


@click.group("import")
def import_() -> None:
    """Bring in what another server has: prosody, ejabberd, xep0227. Everything may be repeated."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    @click.option(
        "--domain-map", "domains", multiple=True, metavar="OLD=NEW", help="A domain of there that is called NEW here"
    )
    @click.option(
        "--existing", type=click.Choice(["merge", "skip", "fail"]), default="merge", show_default=True,
        help="Accounts that are here: add what they lack; leave them alone; or import nothing at all",
    )  # fmt: skip
    @click.option("--passwords", is_flag=True, help="Accounts that are here get the passwords of there")
    @click.option("--dry-run", is_flag=True, help="Import nothing, say what would be")
    @click.option("--json", "as_json", is_flag=True, help="The summary as JSON")
    @finds
    @wraps(command)
    def found(*arguments: Any, **options: Any) -> None:
        command(*arguments, **options)

    return found


@import_.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@_options
def xep0227(api: Api, file: Path, **options: Any) -> None:
    """Import FILE, a document of XEP-0227, and the files that it includes."""
    from stentor.moving.pie import Pie

    _run(api, lambda: Pie(file), **options)


@import_.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--host", "hosts", multiple=True, help="Only this host of SOURCE, of users or of rooms; may be repeated")
@_options
def prosody(api: Api, source: Path, hosts: tuple[str, ...], **options: Any) -> None:
    """Import SOURCE, the data folder of a Prosody (as /var/lib/prosody), or its database of SQLite."""
    from stentor.moving import prosody_sql
    from stentor.moving.prosody import Prosody
    from stentor.moving.prosody_files import Files

    def read() -> Source:
        stores = Files(source) if source.is_dir() else prosody_sql.Database(source)
        unknown = sorted(set(hosts) - set(stores.hosts()))
        if unknown:
            raise Failed(f"{source} has no host {', '.join(unknown)}. There are {', '.join(stores.hosts())}", 2)
        return Prosody(stores, frozenset(hosts))

    _run(api, read, **options)


@import_.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@_options
def ejabberd(api: Api, source: Path, **options: Any) -> None:
    """Import SOURCE: what `ejabberdctl dump` has written, what `ejabberdctl export_piefxis` has, or a folder with
    both."""
    from stentor.moving.ejabberd import Dump
    from stentor.moving.pie import Pie
    from stentor.moving.sources import several
    from stentor.moving.things import Unreadable

    def read() -> Source:
        files = [source] if source.is_file() else sorted(file for file in source.iterdir() if file.is_file())
        found: list[Source] = [Dump(file) for file in files if _is_dump(file)]
        # Files that others include begin with <host/>.
        found += [Pie(file) for file in files if b"<server-data" in _head(file) or (source.is_file() and not found)]
        if not found:
            raise Unreadable(source, "here is neither a dump of ejabberd's nor XEP-0227")
        return several(found)

    _run(api, read, **options)


def _head(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.read(2_000)


def _is_dump(file: Path) -> bool:
    return _head(file).lstrip().startswith(b"{tables")


def _run(
    api: Api, read: Callable[[], Source], domains: tuple[str, ...], existing: Any, passwords: bool, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    from stentor.moving.domains import Domains
    from stentor.moving.sending import Sender
    from stentor.moving.things import Unreadable

    names: dict[str, str] = {}
    for pair in domains:
        old, separator, new = pair.partition("=")
        if not separator or not old or not new:
            raise click.UsageError(f"{pair} is not written as OLD=NEW.")
        names[old] = new
    is_shown = sys.stderr.isatty()

    def progress(text: str) -> None:
        if is_shown:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    sender: Sender | None = None
    end: Exception | KeyboardInterrupt | None = None
    try:
        sender = Sender(api, read(), Domains(names), existing, is_dry=dry_run, passwords=passwords, progress=progress)
        sender.run()
    except (Unreadable, Failed, KeyboardInterrupt) as problem:
        end = problem
    if is_shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    if sender is not None:
        _show(sender.summary, dry_run, as_json, is_whole=end is None)
    if isinstance(end, Unreadable):
        raise Failed(f"{end}. What stands above was imported; the rest was not. Mend the file and repeat") from None
    if isinstance(end, KeyboardInterrupt):
        raise Failed("interrupted. What stands above was imported; the same command goes on with the rest")
    if end is not None:
        raise end


def _show(summary: Summary, is_dry: bool, as_json: bool, *, is_whole: bool) -> None:
    if as_json:
        click.echo(json.dumps({"is_whole": is_whole, "is_dry_run": is_dry, **summary.as_json()}))
        return
    kinds = sorted({*summary.imported, *summary.there, *summary.left_out})
    verb = "would be imported" if is_dry else "imported"
    click.echo(f"{'':<13}{verb:>18}{'there already':>15}{'left out':>10}")
    for kind in kinds:
        counts = summary.imported[kind], summary.there[kind], summary.left_out[kind]
        click.echo(f"{kind:<13}{counts[0]:>18}{counts[1]:>15}{counts[2]:>10}")
    if summary.signing_in:
        known = "; ".join(f"{count} by {means}" for means, count in sorted(summary.signing_in.items()))
        click.echo(f"\naccounts there sign in: {known}")
        if any(means.startswith("SCRAM") and "SHA-512" not in means for means in summary.signing_in):
            click.echo("set authentication.hashes to what all of them have, before they sign in here (docs/moving.md)")
    if summary.reasons:
        click.echo("\nleft out, and why:")
    for (kind, why), reason in sorted(summary.reasons.items()):
        more = ", ..." if reason.count > len(reason.examples) else ""
        click.echo(f"  {reason.count} {kind}: {why} ({', '.join(reason.examples)}{more})")
