"""The policy: rules that judge a message by its facts. Pure: the same facts and rule versions give the same ruling."""
