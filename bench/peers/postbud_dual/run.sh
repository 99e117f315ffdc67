# The same relay with a second key: each message is signed twice.
cat second.toml >> accounts.toml
exec @python@ -m postbud relay --config postbud.toml --directory accounts.toml
