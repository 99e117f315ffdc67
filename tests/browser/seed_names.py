"""Who is there after `seed`, for tests that do not set Django up."""

ADA, NINA, OPERATOR = "ada@holm.example", "new@holm.example", "operator@postbud.example"
