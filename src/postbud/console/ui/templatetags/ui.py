"""Template tags of the components: assets, icons, instants, states, fields, addresses that may not exist yet.

Knows nothing of accounts or mail. Invariant: every value from outside is escaped here or by the template it is given to.
"""

from datetime import datetime
from typing import Any

from django import forms, template
from django.forms import BoundField
from django.urls import NoReverseMatch, reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from postbud.console.ui import assets, instants, states

register = template.Library()


@register.simple_tag
def asset(name: str) -> str:
    """Give the address of a static file of the pages."""
    return assets.url(name)


@register.simple_tag
def icon(name: str, classes: str = "") -> SafeString:
    """Draw an icon of the sprite; it is never the only text of a thing."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        classes,
        assets.url("icons.svg"),
        name,
    )


@register.simple_tag
def instant(at: datetime | None, otherwise: str = "–") -> SafeString:
    """Show an instant by its distance or date; the exact one appears on hover and to screen readers' users on demand."""
    if at is None:
        return format_html('<span class="quiet">{}</span>', otherwise)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', at.isoformat(), instants.exact(at), instants.near(at, timezone.now())
    )


@register.simple_tag
def exact_instant(at: datetime | None) -> SafeString:
    """Show an instant whole."""
    if at is None:
        return format_html('<span class="quiet">–</span>')
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), instants.exact(at))


@register.simple_tag
def state(value: str, plain: str = "") -> SafeString:
    """Show a state as a badge: a colour and a word."""
    colour, word = states.look(str(value))
    return format_html('<span class="badge {} {}">{}</span>', colour, "plain" if plain else "", word)


@register.filter
def word(value: str) -> str:
    """Give the word of a state, kind or role."""
    return states.look(str(value))[1]


@register.filter
def count(value: object) -> str:
    """Group a number's digits as the language does."""
    return formats.number_format(value, use_l10n=True, force_grouping=True) if isinstance(value, int | float) else "–"


@register.filter
def initials(name: str) -> str:
    """Give at most two letters that stand for a name."""
    parts = [part for part in str(name).replace("@", " ").replace(".", " ").split() if part[:1].isalnum()]
    return "".join(part[0] for part in parts[:2]).upper() or "?"


@register.simple_tag
def url_if(name: str, *args: object) -> str:
    """Give an address, or nothing where no page of that name exists."""
    try:
        return str(reverse(name, args=[str(one) for one in args]))
    except NoReverseMatch:
        return ""


@register.simple_tag(takes_context=True)
def query(context: dict[str, Any], **changes: object) -> str:
    """Give the present query string with some parameters changed; an empty value removes one."""
    parameters = context["request"].GET.copy()
    for key, value in changes.items():
        if value in {None, ""}:
            parameters.pop(key, None)
        else:
            parameters[key] = str(value)
    return f"?{parameters.urlencode()}"


_CHECKS = (forms.CheckboxInput,)
_SELECTS = (forms.Select,)
NO_HINT = "none"
_OWN = (forms.RadioSelect, forms.CheckboxSelectMultiple)


@register.inclusion_tag("ui/field.html")
def field(bound: BoundField, label: str = "", hint: str = "", optional: str = "", classes: str = "") -> dict[str, object]:
    """Draw a form's field with its label, hint and errors, tied together for those who listen."""
    widget = bound.field.widget
    identity = bound.id_for_label or bound.auto_id or bound.html_name
    text = "" if hint == NO_HINT else hint or str(bound.help_text or "")
    described = [f"{identity}-hint"] if text else []
    if bound.errors:
        described.append(f"{identity}-error")
    attributes: dict[str, Any] = {}
    if isinstance(widget, _CHECKS):
        attributes["class"] = "form-check-input"
    elif isinstance(widget, _SELECTS) and not isinstance(widget, _OWN):
        attributes["class"] = "form-select"
    elif not isinstance(widget, _OWN):
        attributes["class"] = "form-control"
    if widget.attrs.get("placeholder") and (label or widget.attrs["placeholder"] == str(bound.label)):
        attributes["placeholder"] = ""  # the label says it already, and stays
    if described:
        attributes["aria-describedby"] = " ".join(described)
    if bound.errors:
        attributes["aria-invalid"] = "true"
    return {
        "bound": bound,
        "control": bound.as_widget(attrs=attributes),
        "identity": identity,
        "label": label or bound.label,
        "hint": text,
        "show_optional": bool(optional) or not (bound.field.required or isinstance(widget, _SELECTS)),
        "classes": classes,
        "check": isinstance(widget, _CHECKS),
        "secret": isinstance(widget, forms.PasswordInput),
        "many": isinstance(widget, _OWN),
    }


@register.inclusion_tag("ui/fields.html")
def fields(form: forms.BaseForm) -> dict[str, object]:
    """Draw what went wrong with a form as a whole, then every field of it."""
    return {"form": form}


@register.inclusion_tag("ui/form_errors.html")
def form_errors(form: forms.BaseForm) -> dict[str, object]:
    """Draw what is wrong with a form as a whole."""
    return {"errors": form.non_field_errors()}
