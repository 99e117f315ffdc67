import time

import pytest

from postbud.mime.words import MAX_TEXT, decode_charset, decode_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?q?J=C3=BCrgen_B?= x", "Jürgen B x"),
        (b"=?UTF-8?B?SsO8cmdlbg==?=", "Jürgen"),
        (b"=?iso-8859-1*da?Q?J=FCrgen?=", "Jürgen"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=\r\n =?utf-8?q?c?= d", "abc d"),
        (b"=?x-unknown?q?a?=", "=?x-unknown?q?a?="),
        (b"=?punycode?q?a?=", "=?punycode?q?a?="),
        (b"=?iso-8859-99?q?a?=", "=?iso-8859-99?q?a?="),
        (b"=?utf-8?b?a?=", "=?utf-8?b?a?="),
        (b"=?utf-8?q?=ff?=", "�"),
        (b"=?utf-8?q?a=0D=0AB?=", "a  B"),
        (b"\xff", "�"),
        ("=?utf-8?q?=C3=A6?= og ø", "æ og ø"),
    ],
)
def test_words_are_decoded_for_reading_and_broken_ones_stay(value: bytes | str, text: str) -> None:
    assert decode_words(value) == text


def test_the_answer_is_bounded() -> None:
    assert len(decode_words(b"a" * 100_000)) == MAX_TEXT


def test_a_charset_that_a_codec_refuses_is_none() -> None:
    assert decode_charset(b"abc", "utf-16") is not None
    assert decode_charset(b"abc", "rot13") is None
    assert decode_charset(b"abc", "cp9999") is None


@pytest.mark.row("G7")
@pytest.mark.parametrize(
    "value", [b"=?utf-8?q?a=40b?= " * 4000, b"=?" * 100_000, b"?= " * 80_000, b"=?utf-8?q?" * 20_000, b"?=" + b" " * 200_000]
)
def test_thousands_of_words_cost_little(value: bytes) -> None:
    started = time.perf_counter()
    decode_words(value)
    assert time.perf_counter() - started < 0.5
