"""The hosts and the resolv.conf of steps: the host's, but for what `[dns]` says and nobody could reach."""

from __future__ import annotations

from llb.ops import HostIP, Meta
from worker.context import Dns
from worker.ops.hostfiles import host_files, hosts, resolv_conf, with_dns

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


def test_the_names_of_a_step() -> None:
    assert hosts("box", [HostIP(host="db", ip="10.0.0.2"), HostIP(host="six", ip="fd00::1")]) == (
        b"127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\nfd00::1\tsix\n"
    )
    assert hosts("").startswith(b"127.0.0.1\tlocalhost buildkitsandbox\n")


def test_loopback_servers_count_on_the_network_of_the_host_only() -> None:
    local = b"search lan\nnameserver 127.0.0.53\noptions edns0\n"
    assert resolv_conf(local, network="host") == local
    away = resolv_conf(local + b"nameserver 10.0.0.1\nnameserver ::1%lo\n", network="none")
    assert away == b"search lan\noptions edns0\nnameserver 10.0.0.1\n"


def test_public_servers_stand_in_where_there_is_none() -> None:
    public = b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
    assert resolv_conf(b"", network="host") == public
    assert resolv_conf(b"nameserver\n# nameserver 10.0.0.1\n", network="host").endswith(public)
    assert resolv_conf(b"nameserver 127.0.0.1\noptions x\n", network="none") == b"options x\n" + public
    assert resolv_conf(b"", network="none", dns=Dns(nameservers=("10.0.0.1",))) == b"nameserver 10.0.0.1\n"


def test_where_they_go() -> None:
    files = host_files(Meta(args=("x",), extra_hosts=(HostIP(host="db", ip="10.0.0.2"),)), network="none")
    assert set(files) == {"/etc/hosts", "/etc/resolv.conf"}
    assert b"10.0.0.2\tdb\n" in files["/etc/hosts"]
    assert b"nameserver 127." not in files["/etc/resolv.conf"]
