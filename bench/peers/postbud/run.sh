# As docs/operator.md has it; nothing is tuned.
exec @python@ -m postbud relay --config postbud.toml --directory accounts.toml
