"""Whether a peer is one of those that were configured: by its address."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from wado.settings import Network


@lru_cache(maxsize=4096)
def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks (a tuple); what is no address does not."""
    found = as_address(address)
    return found is not None and any(found in network for network in networks)


def as_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address; IPv4 that came through a socket of IPv6 is IPv4 again. None: it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
