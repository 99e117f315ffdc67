"""What relays are told of servers and credentials."""

from postbud.console.link.publish import publish
from postbud.console.servers.models import Credential, CredentialKind, Server
from postbud.model.account import Kind, Status
from postbud.model.link import CredentialRecord, ServerRecord


def server_record(server: Server) -> ServerRecord:
    """Give the record of a server."""
    return ServerRecord(
        id=server.id,
        account=server.account_id,
        purpose=Kind(server.kind),
        status=Status(server.status),
        pool=server.pool or None,
        hourly_cap=server.hourly_cap,
        keep_content=server.keep_content,
    )


def credential_record(credential: Credential) -> CredentialRecord:
    """Give the record of a credential."""
    return CredentialRecord(
        id=credential.id,
        server=credential.server_id,
        username=credential.username,
        secret_hash=credential.secret_hash or None,
        former_hash=credential.former_hash or None,
        former_until=credential.former_until,
        networks=tuple(credential.networks),
        api=credential.kind == CredentialKind.API,
        status=Status(credential.status),
        allow_from=tuple(credential.allow_from),
        hourly_cap=credential.hourly_cap,
        normalise_line_ends=credential.normalise_line_ends,
    )


def publish_server(server: Server) -> None:
    """Tell relays how a server is now."""
    publish(server_record(server))


def publish_credential(credential: Credential) -> None:
    """Tell relays how a credential is now."""
    publish(credential_record(credential))
