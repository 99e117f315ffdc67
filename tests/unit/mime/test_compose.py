"""What we compose is read by the standard library's parser as it was meant, and fits the wire."""

import email
import email.header
import email.policy
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbud.mime.address import parse_mailbox_list
from postbud.mime.compose import Attachment, ComposeError, Letter, Person, compose, content_type_of
from postbud.mime.folding import is_plain
from postbud.mime.header import HeaderSection
from postbud.mime.words import decode_words
from postbud.model.mailbox import Mailbox

TOKEN = "0123456789abcdef"
ANN = Person(Mailbox.parse("ann@acme.example"))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))

# what a header may say: no control characters, no surrogates, no line separators; and no white space at its ends, which
# every reader strips
WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=200).filter(
    lambda text: text == text.strip()
)
BODIES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=2000)


def composed(letter: Letter) -> bytes:
    header, body = compose(letter, TOKEN)
    whole = header + b"\r\n" + body
    assert whole.count(b"\r\n") == whole.count(b"\r") == whole.count(b"\n")
    assert max(map(len, whole.split(b"\r\n"))) <= 998
    HeaderSection.parse(header)
    return whole


def read(letter: Letter) -> Message:
    return email.message_from_bytes(composed(letter))


def words(message: Message, name: str) -> str:
    return str(email.header.make_header(email.header.decode_header(message[name]))) if message[name] else ""


def text_of(part: Message) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode(part.get_content_charset() or "ascii")


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def with_end(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def test_a_plain_text_is_one_part_that_people_can_read_on_the_wire() -> None:
    whole = composed(Letter(ANN, to=[Person(Mailbox.parse("you@dest.example"), "You")], subject="Hello", text="Hi\nthere"))
    assert whole == (
        b"From: ann@acme.example\r\nTo: You <you@dest.example>\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\nHi\r\nthere\r\n"
    )


@given(WORDS)
@settings(max_examples=300)
def test_any_subject_is_read_as_it_was_said(subject: str) -> None:
    whole = composed(Letter(ANN, subject=subject, text=""))
    message = email.message_from_bytes(whole)
    assert words(message, "Subject").replace("\n", "") == subject
    assert whole.isascii()
    section = HeaderSection.parse(whole.partition(b"\r\n\r\n")[0] + b"\r\n")
    assert decode_words(section.value(b"subject") or b"") == subject


@pytest.mark.parametrize(
    "subject",
    [
        " leading", "trailing ", "two  spaces", "a\ttab", "=?utf-8?q?not_a_word?=", "w" * 2000, "ø" * 500,
        "word " * 300 + "end", "漢字" * 100, "😀" * 40, "é x " * 60 + "é",
    ],
)  # fmt: skip
def test_subjects_that_folding_would_harm_are_encoded(subject: str) -> None:
    section = HeaderSection.parse(compose(Letter(ANN, subject=subject, text=""), TOKEN)[0])
    assert decode_words(section.value(b"subject") or b"") == subject.replace("\t", " ")


def test_no_encoded_word_is_longer_than_75_characters() -> None:
    header, _ = compose(Letter(ANN, subject="Blåbærgrød til æresgæsten på Ærø, " * 9 + "日本語" * 50, text=""), TOKEN)
    found = [word for line in header.split(b"\r\n") for word in line.split(b" ") if word.startswith(b"=?")]
    assert len(found) > 3
    assert max(map(len, found)) <= 75


@given(st.lists(st.tuples(WORDS, st.sampled_from(["a@b.example", '"q u"@c.example', "z+y@d.example"])), min_size=1, max_size=6))
def test_names_and_mailboxes_are_read_by_our_own_strict_parser(people: list[tuple[str, str]]) -> None:
    to = [Person(Mailbox.parse(mailbox), name) for name, mailbox in people]
    header, _ = compose(Letter(ANN, to=to, text="x"), TOKEN)
    found = parse_mailbox_list(HeaderSection.parse(header).value(b"to") or b"")
    assert [(one.display_name, str(one.mailbox)) for one in found] == people


def test_a_name_with_marks_is_quoted() -> None:
    name = 'Acme, Inc. "the best" \\ <sales@acme.example>'
    header, _ = compose(
        Letter(ANN, to=[Person(ANN.mailbox, 'Acme, "Inc." \\')], reply_to=[Person(ANN.mailbox, name)], text=""), TOKEN
    )
    assert b'To: "Acme, \\"Inc.\\" \\\\" <ann@acme.example>\r\n' in header
    found = parse_mailbox_list(HeaderSection.parse(header).value(b"reply-to") or b"")
    assert found[0].display_name == name


def test_a_thousand_recipients_stand_on_lines_of_their_own() -> None:
    people = [Person(Mailbox.parse(f"recipient-number-{number}@dest.example"), "Ærlig Modtager") for number in range(1000)]
    section = HeaderSection.parse(compose(Letter(ANN, to=people, cc=people[:1], reply_to=people[:2], text="x"), TOKEN)[0])
    assert len(parse_mailbox_list(section.value(b"to") or b"", 1000)) == 1000
    assert section.count(b"cc") == section.count(b"reply-to") == 1


def test_a_mailbox_beyond_ascii_stands_in_utf8() -> None:
    person = Person(Mailbox.parse("grød@dest.example", smtputf8=True))
    assert "To: grød@dest.example\r\n".encode() in compose(Letter(ANN, to=[person], text="x"), TOKEN)[0]


@given(BODIES, BODIES)
@settings(max_examples=200)
def test_text_and_html_are_read_as_they_were_said(text: str, html: str) -> None:
    message = read(Letter(ANN, text=text, html=html))
    assert message.get_content_type() == "multipart/alternative"
    first, second = message.get_payload()
    assert (first.get_content_type(), second.get_content_type()) == ("text/plain", "text/html")
    assert lines(text_of(first)) == with_end(lines(text))
    assert lines(text_of(second)) == with_end(lines(html))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Hello\n.\n..\nFrom here\n", "7bit"), ("Blåbær\n" * 50, "quoted-printable"), ("日本語" * 100, "base64"),
        ("x" * 999, "quoted-printable"),
    ],
)  # fmt: skip
def test_the_encoding_that_fits_is_chosen(text: str, encoding: str) -> None:
    message = read(Letter(ANN, text=text))
    assert message["Content-Transfer-Encoding"] == encoding
    assert lines(text_of(message)) == with_end(text)


def test_everything_together_nests_as_readers_expect() -> None:
    letter = Letter(
        ANN,
        text="See the picture",
        html='<img src="cid:logo@acme">',
        attachments=[
            Attachment(PNG, "image/png", "logo.png", "logo@acme"),
            Attachment(b"a;b\n", "text/csv; charset=utf-8", "tal for året.csv"),
        ],
    )
    message = read(letter)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png", "text/csv",
    ]  # fmt: skip
    picture, table = (part for part in message.walk() if part.get_filename())
    assert picture["Content-ID"] == "<logo@acme>"
    assert picture.get_content_disposition() == "inline"
    assert picture.get_payload(decode=True) == PNG
    assert table.get_content_disposition() == "attachment"
    assert table.get_filename() == "tal for året.csv"
    assert table.get_content_charset() == "utf-8"
    assert len({part.get_boundary() for part in message.walk() if part.is_multipart()}) == 3


def test_without_html_a_file_with_a_content_id_is_an_attachment() -> None:
    message = read(Letter(ANN, text="x", attachments=[Attachment(PNG, "image/png", "a.png", "logo@acme")]))
    assert [part.get_content_type() for part in message.walk()] == ["multipart/mixed", "text/plain", "image/png"]
    assert message.get_payload()[1].get_content_disposition() == "attachment"


@given(WORDS)
@settings(max_examples=200)
def test_any_file_name_is_read_as_it_was_said(filename: str) -> None:
    message = read(Letter(ANN, html="x", attachments=[Attachment(b"1", filename=filename)]))
    part = message.get_payload()[1]
    found = part.get_filename()
    assert email.utils.collapse_rfc2231_value(found) == filename


@pytest.mark.row("G8")
def test_a_path_in_a_file_name_is_text() -> None:
    part = read(Letter(ANN, text="", attachments=[Attachment(b"", filename="../../etc/passwd")])).get_payload()[1]
    assert part.get_filename() == "../../etc/passwd"
    assert b"Content-Disposition: attachment\r\n" in composed(Letter(ANN, text="", attachments=[Attachment(b"")]))


@given(st.binary(max_size=500))
def test_any_octets_of_a_file_come_back(octets: bytes) -> None:
    part = read(Letter(ANN, text="", attachments=[Attachment(octets, filename="x")])).get_payload()[1]
    assert part.get_payload(decode=True) == octets


def test_an_attached_message_is_not_encoded() -> None:
    inner = b"From: a@b.example\nSubject: in\n\nHi"
    part = read(Letter(ANN, text="", attachments=[Attachment(inner, "message/rfc822", "m.eml")])).get_payload()[1]
    assert part["Content-Transfer-Encoding"] == "7bit"
    assert part.get_payload()[0]["Subject"] == "in"
    ended = Attachment(inner + b"\r\n", "message/rfc822", "m.eml")
    assert composed(Letter(ANN, text="", attachments=[ended])).count(b"Hi\r\n\r\n--=_") == 1


@pytest.mark.parametrize("content", ["blå".encode(), b"a\rb", b"\0", b"x" * 999])
def test_an_attached_message_that_would_have_to_be_encoded_is_refused(content: bytes) -> None:
    with pytest.raises(ComposeError, match=r"attachments\[0\].content: ") as raised:
        compose(Letter(ANN, text="", attachments=[Attachment(content, "message/rfc822")]), TOKEN)
    assert raised.value.field == "attachments[0].content"


@pytest.mark.parametrize(
    "kind", ["", "text", "text/", "a/b; c", "a/b;c=d\r\ne: f", "multipart/mixed", "text/plain; name=é", "x" * 99 + "/a"]
)
def test_what_is_no_type_of_a_file_is_refused(kind: str) -> None:
    with pytest.raises(ComposeError, match="content_type"):
        compose(Letter(ANN, text="", attachments=[Attachment(b"", kind)]), TOKEN)


def test_a_type_is_written_in_lower_case_with_its_parameters() -> None:
    assert content_type_of('Text/CSV ;charset="utf-8"; header=present') == (
        'text/csv; charset="utf-8"; header=present',
        "text/csv",
    )


def test_what_can_stand_in_a_field_as_it_is_is_told() -> None:
    assert is_plain("")
    assert is_plain("<a@b.example> <c@d.example>")
    assert not is_plain("æ")
    assert not is_plain("w" * 701)


def test_further_fields_stand_in_their_order() -> None:
    header, _ = compose(Letter(ANN, text="", headers=[("X-Order", "1"), ("X-Empty", ""), ("X-Order", "æ")]), TOKEN)
    section = HeaderSection.parse(header)
    assert [decode_words(field.value) for field in section.get_all(b"x-order")] == ["1", "æ"]
    assert section.value(b"x-empty") == b""
