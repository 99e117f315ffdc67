"""Every no is a problem with a code, and the API's description holds together."""

import json

import pytest

from postbud.httpd.openapi import describe
from postbud.httpd.problem import Code, FieldError, catalogue, problem, problem_of
from postbud.httpd.settings import ApiSettings
from postbud.model.refusal import Refusal, Why


@pytest.mark.parametrize("why", list(Why))
def test_every_refusal_is_a_problem_of_its_status(why: Why) -> None:
    no = problem_of(Refusal(why, "public words", "private words"), [FieldError("to[0]", "x")])
    said = json.loads(no.body)
    assert (said["status"], said["code"], said["detail"]) == (why.http_status, why.value[0], "public words")
    assert said["errors"] == [{"field": "to[0]", "message": "x"}]
    assert "private" not in no.body.decode()
    assert ("retry-after" in no.headers) == (why.http_status in {429, 503, 507})
    assert ("www-authenticate" in no.headers) == (why.http_status == 401)


def test_a_wait_that_is_known_is_told() -> None:
    no = problem_of(Refusal(Why.RATE, "hourly cap of 3 is used up; try again in 1201 seconds"))
    assert no.headers["retry-after"] == "1201"


def test_codes_are_one_catalogue() -> None:
    codes = catalogue()
    assert len(codes) == len(Code) + len(Why)
    assert codes["bad_line_ends"] == (422, "Line ends are not CRLF")
    assert problem(Code.NOT_FOUND, "x").status == codes["not_found"][0] == 404


def test_the_description_refers_to_nothing_that_is_not_there() -> None:
    described = json.dumps(describe(ApiSettings("127.0.0.1:1", "relay.example")))
    tree = json.loads(described)
    for reference in {part.partition('"')[0] for part in described.split('"$ref": "#/components/schemas/')[1:]}:
        assert reference in tree["components"]["schemas"], reference
    statuses = set(tree["paths"]["/v1/messages"]["post"]["responses"])
    assert {str(why.http_status) for why in Why} - statuses == {"404"}  # of the inbound listener
    assert {str(code.status) for code in Code} - statuses == {"404", "405"}
