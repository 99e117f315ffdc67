"""Addresses of accounts, their people and settings, of the viewer's profile, and of the operator's list."""

from django.urls import path

from postbud.console.accounts import identity_views, leaving_views, operation, views

app_name = "accounts"
_ACCOUNT = "a/<str:account_id>/"
urlpatterns = [
    path("", views.start, name="start"),
    path("profile/", views.profile, name="profile"),
    path("invitations/<str:token>/", views.invitation, name="invitation"),
    path(_ACCOUNT, views.home, name="home"),
    path(f"{_ACCOUNT}people/", views.people, name="people"),
    path(f"{_ACCOUNT}people/<str:person_id>/role/", views.member_role, name="member_role"),
    path(f"{_ACCOUNT}people/<str:person_id>/remove/", views.member_remove, name="member_remove"),
    path(f"{_ACCOUNT}invitations/<str:invitation_id>/withdraw/", views.invitation_withdraw, name="invitation_withdraw"),
    path(f"{_ACCOUNT}settings/", views.settings, name="settings"),
    path(f"{_ACCOUNT}identity/", identity_views.sender_identity, name="identity"),
    path(f"{_ACCOUNT}identity/evidence/", identity_views.evidence, name="evidence"),
    path(f"{_ACCOUNT}everything/", leaving_views.everything, name="everything"),
    path(f"{_ACCOUNT}close/", leaving_views.close, name="close"),
    path(f"{_ACCOUNT}audit/", views.audit_log, name="audit"),
    path("operator/accounts/", operation.accounts, name="operator"),
]
