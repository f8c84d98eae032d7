"""Whether a registry takes a credential: asked with `GET /v2/`, before anybody keeps it.

Facts: distribution-spec, "Determining Support"; the token specification's offline tokens, which docker's files call
identity tokens. An open registry takes every credential, since it asks for none.
"""

from __future__ import annotations

from buildengine.errors import RegistryError
from worker.registry.auth import Authorizer
from worker.registry.client import EndpointClient
from worker.registry.hosts import Endpoint
from worker.registry.transport import Transport
from worker.session import Credential, SecretBytes

_UNAUTHORIZED = 401


class _Only:
    """`Credentials` of one credential, for the host that is asked."""

    tokens: None = None

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def get(self, host: str) -> Credential | None:
        return self._credential


async def log_in(
    endpoint: Endpoint, credential: Credential, transport: Transport, *, user_agent: str
) -> SecretBytes | None:
    """The identity token that stands for `credential` from now on; None when the registry gives none.

    Raises RegistryError (status 401: the credential is not taken), SourceError.
    """
    authorizer = Authorizer(
        endpoint.host,
        key=endpoint.credential_key,
        is_plain=endpoint.is_plain,
        transport=transport,
        credentials=_Only(credential),
        wants_identity=True,
    )
    try:
        async with EndpointClient(endpoint, authorizer, transport, user_agent).ping(subject="login"):
            return authorizer.identity
    except RegistryError as error:
        if error.status != _UNAUTHORIZED:
            raise
        raise RegistryError(
            f"login failed: {error.message}",
            status=error.status,
            code=error.code,
            hint="check the user name and the password; some registries want a token in the place of the password",
        ) from None
