"""The resolv.conf of steps: the host's, but for the kinds of line that `[dns]` has."""

from __future__ import annotations

from worker.context import Dns
from worker.ops.hostfiles import with_dns

HOSTS = b"# mine\nnameserver 10.0.0.1\nnameserver 10.0.0.2\ndomain old.example\nsearch a.example\noptions ndots:5\n"


def test_nothing_is_replaced_by_nothing() -> None:
    assert with_dns(HOSTS, Dns()) == HOSTS


def test_each_kind_is_replaced_by_itself() -> None:
    assert with_dns(HOSTS, Dns(nameservers=("1.1.1.1", "8.8.8.8"))) == (
        b"# mine\ndomain old.example\nsearch a.example\noptions ndots:5\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n"
    )
    assert with_dns(HOSTS, Dns(search_domains=("x.example", "y.example"), options=("rotate",))) == (
        b"# mine\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch x.example y.example\noptions rotate\n"
    )


def test_a_host_without_a_file() -> None:
    assert with_dns(b"", Dns(nameservers=("1.1.1.1",))) == b"nameserver 1.1.1.1\n"
