"""Contents of fresh messages, kept in memory until their first attempt, so that ordinary mail is never read back."""

from collections import OrderedDict

from postbud.model.content import Content
from postbud.model.ids import MessageId


class ContentCache:
    """Least recently added goes first when the octets are used up. Bodies in files cost only their header section."""

    def __init__(self, limit_octets: int = 64 * 1024 * 1024) -> None:
        self._limit = limit_octets
        self._octets = 0
        self._kept: OrderedDict[MessageId, Content] = OrderedDict()

    def remember(self, message_id: MessageId, content: Content) -> None:
        """Keep a content."""
        self._kept[message_id] = content
        self._octets += _weight(content)
        while self._octets > self._limit and self._kept:
            _, oldest = self._kept.popitem(last=False)
            self._octets -= _weight(oldest)

    def take(self, message_id: MessageId) -> Content | None:
        """Give a content that is here and forget it: a second attempt is rare and reads the spool."""
        content = self._kept.pop(message_id, None)
        if content is not None:
            self._octets -= _weight(content)
        return content


def _weight(content: Content) -> int:
    return len(content.header) + (len(content.body) if isinstance(content.body, bytes) else 0)
