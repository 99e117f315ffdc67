import pytest

from postbud.net.guard import Guard
from postbud.net.guarded import UrlRefused, check_url

GOOD = [
    "https://hooks.customer.com/in?a=1",
    "http://hooks.customer.com:80/",
    "https://hooks.customer.com:443/x",
    "https://8.8.8.8/x",
    "https://[2606:4700::1111]/x",
    "https://xn--bcher-kva.com/",
]
BAD = [
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://127.0.0.1/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::1]/",
    "http://169.254.169.254/latest/meta-data",
    "http://localhost/",
    "http://localhost./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://intranet/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://[fe80::1%25eth0]/",
    "file:///etc/passwd",
    "gopher://hooks.customer.com/",
    "ftp://hooks.customer.com/",
    "//hooks.customer.com/",
    "https://hooks.customer.com:25/",
    "https://hooks.customer.com:99999/",
    "https://user@hooks.customer.com/",
    "https://user:secret@hooks.customer.com/",
    "https://8.8.8.8@10.0.0.1/",
    "https://hooks.customer.com\\@10.0.0.1/",
    "https://hooks.customer.com/#x",
    "https://hooks.customer.com/\r\nX: y",
    "https://hooks.customer.com/ x",
    "https://hooks..customer.com/",
    "https://bücher.com/",
    "https://[::1/",
    "https://" + "a" * 2048 + ".com/",
    "",
]


@pytest.mark.row("J4")
@pytest.mark.parametrize("url", BAD)
def test_a_url_that_leads_inside_or_is_none_is_refused_when_it_is_typed(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        check_url(url, Guard())
    assert str(refused.value)[0].islower() or str(refused.value).startswith(("a ", "this "))


@pytest.mark.parametrize("url", GOOD)
def test_a_url_on_the_public_internet_is_taken(url: str) -> None:
    assert check_url(url, Guard()).hostname


def test_a_port_that_the_operator_allows_is_taken() -> None:
    assert check_url("https://hooks.customer.com:8443/", Guard(), ports=[8443]).port == 8443


def test_an_address_that_the_operator_allows_is_taken() -> None:
    assert check_url("http://127.0.0.1/", Guard(allowed=["127.0.0.0/8"])).hostname == "127.0.0.1"
