"""Fuzzes the reader of bounces and reports, and the classifier behind it: no exception, every text one safe bounded line."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["postbud"]):
    import postbud.bounce
    from postbud.bounce.classify import Classifier
    from postbud.mime.header import split_content
    from postbud.mime.report import MAX_RECIPIENTS, MAX_TEXT, parse_dsn

RULES = Path(postbud.bounce.__file__).parent / "rules.toml"
CLASSIFIER = Classifier.from_toml(RULES.read_text(encoding="utf-8"))
REPORT = b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n"
STATUS = b"--b\r\nContent-Type: message/delivery-status\r\n\r\n"


def read(header: bytes, body: bytes) -> None:
    report = parse_dsn(header, body, own_hostname="relay.example")
    if report is None:
        return
    assert len(report.recipients) <= MAX_RECIPIENTS
    assert len(report.text) <= MAX_TEXT * 10
    assert report.text.isprintable()
    CLASSIFIER.classify(None, None, report.text)
    for said in report.recipients:
        for value in (said.final, said.original, said.action, said.status, said.diagnostic, said.remote_mta):
            assert value.isprintable()
        CLASSIFIER.classify(None, said.status, said.diagnostic)


def test_one_input(octets: bytes) -> None:
    split = split_content(octets)
    if split is not None:
        read(split[0], octets[split[1] :])
    read(REPORT, octets)
    read(REPORT, STATUS + octets)


def main() -> None:
    """Fuzz until libFuzzer's `-max_total_time` is over."""
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
