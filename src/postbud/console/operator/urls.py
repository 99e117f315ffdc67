"""Addresses of the operator's pages."""

from django.urls import path

from postbud.console.operator import account_views, queue_views, review_views, views

app_name = "operator"
urlpatterns = [
    path("operator/", views.overview, name="overview"),
    path("operator/statistics/", views.statistics_page, name="statistics"),
    path("operator/health/", views.health, name="health"),
    path("operator/relays/", views.relays, name="relays"),
    path("operator/relays/<str:node_id>/", views.relay, name="relay"),
    path("operator/relays/<str:node_id>/revoke/", views.revoke, name="relay_revoke"),
    path("operator/queue/", queue_views.queue, name="queue"),
    path("operator/accounts/<str:account>/", account_views.account, name="account"),
    path("operator/accounts/<str:account>/limits/", account_views.limits, name="account_limits"),
    path("operator/accounts/<str:account>/status/", account_views.status, name="account_status"),
    path("operator/domains/", review_views.domains, name="domains"),
    path("operator/domains/<str:domain_id>/<str:verdict>/", review_views.judge_domain, name="domain_judge"),
    path("operator/identities/", review_views.identities, name="identities"),
    path("operator/identities/<str:account>/judge/", review_views.judge, name="identity_judge"),
    path("operator/identities/<str:account>/evidence/", review_views.evidence, name="evidence"),
    path("operator/audit/", review_views.audit_search, name="audit"),
    path("operator/announcements/", review_views.announcements, name="announcements"),
    path("operator/announcements/<str:announcement_id>/end/", review_views.end, name="announcement_end"),
]
