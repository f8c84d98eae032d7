"""Chain ids against vectors made with sha256sum, as the OCI image-spec defines them (config.md, "Layer ChainID")."""

from __future__ import annotations

import pytest

from buildengine.digest import Digest
from worker.oci.chain import chain_ids

# printf one | sha256sum, and so on; a chain: printf 'sha256:<below> sha256:<diff id>' | sha256sum
ONE = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
TWO = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
THREE = "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f"
ONE_TWO = "ee90d7132b9e9a049b7b0a88db345ca31fb5e8a74a5ee57210478a9a2522d499"
ONE_TWO_THREE = "bda931dfb05a05b2b515a117925fb63136f30ff08f5b2a4f79da3507a55580b3"
ONE_ONE = "260856ae6d813deb845c4f5b1cba74cae4e5eb630fc25610c8859413242e731c"


@pytest.mark.parametrize(
    ("diff_ids", "chain"),
    [
        ([], []),
        ([ONE], [ONE]),
        ([ONE, TWO, THREE], [ONE, ONE_TWO, ONE_TWO_THREE]),
        ([ONE, ONE], [ONE, ONE_ONE]),  # a layer that comes twice is another one above itself
    ],
)
def test_known_chains(diff_ids: list[str], chain: list[str]) -> None:
    assert chain_ids(map(Digest.of_hex, diff_ids)) == [f"sha256:{hex}" for hex in chain]


def test_the_order_of_layers_counts() -> None:
    one, two = Digest.of_hex(ONE), Digest.of_hex(TWO)
    assert chain_ids([two, one])[-1] != chain_ids([one, two])[-1]
