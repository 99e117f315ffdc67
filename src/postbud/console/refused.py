"""The no of a service: which field it is about, and what a person may hear of it."""


class Refused(ValueError):  # noqa: N818  # names the answer
    """Something cannot be as asked. `field` is the form's field, empty for the whole; `text` is translated and for people."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field
        self.text = text
