"""Encoded words (RFC 2047): turns header text into what a person reads. For showing and for rules, never for addresses.

Unknown or dangerous charsets and broken words stay as they are; octets that do not decode become U+FFFD, controls become
spaces. Linear time.
"""

import binascii
import re

MAX_TEXT = 20_000  # characters of an answer; a header section may hold 256 KiB of encoded words

_WORD = re.compile(r"=\?([A-Za-z0-9_.:\-]{1,40})(?:\*[A-Za-z\-]{0,20})?\?([bBqQ])\?([!->@-~]{0,990})\?=")
_BETWEEN = re.compile(r"(\?=)[ \t\r\n]+(?==\?)")
_CONTROLS = dict.fromkeys((*range(32), 127), " ")
_CHARSET = re.compile(
    r"(?:utf-?8|us-ascii|ascii|iso-?8859-?\d{1,2}|(?:windows-|cp)\d{3,4}|koi8-[rut]|gb2312|gbk|gb18030|big5(?:-?hkscs)?"
    r"|euc-(?:jp|kr)|iso-2022-(?:jp|kr)(?:-\d)?|shift[_-]jis|utf-?16(?:[bl]e)?|mac(?:intosh|-roman)|tis-620|ks_c_5601-1987)",
    re.IGNORECASE,
)


def decode_words(value: bytes | str) -> str:
    """Give the text of an unstructured field body or phrase, encoded words decoded, at most 20,000 characters."""
    text = value if isinstance(value, str) else value.decode("utf-8", "replace")
    text = text[: MAX_TEXT * 4].replace("\r\n", "")
    if "=?" in text:
        text = _WORD.sub(_decoded, _BETWEEN.sub(r"\1", text))
    return text[:MAX_TEXT].translate(_CONTROLS)


def decode_charset(octets: bytes, charset: str) -> str | None:
    """Decode octets of a charset that mail uses; None when it is none of those or does not exist."""
    if not _CHARSET.fullmatch(charset):
        return None
    try:
        return octets.decode(charset, "replace")
    except (LookupError, ValueError):
        return None


def _decoded(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    raw = text.encode("ascii")
    try:
        octets = binascii.a2b_base64(raw) if encoding in "bB" else binascii.a2b_qp(raw, header=True)
    except binascii.Error:
        return match.group()
    decoded = decode_charset(octets, charset)
    return match.group() if decoded is None else decoded
