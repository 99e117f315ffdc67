"""Addresses of an account's message log."""

from django.urls import path

from postbud.console.mail import figures_views, views, weekly_views

app_name = "mail"
urlpatterns = [
    path("a/<str:account_id>/statistics/", figures_views.statistics_page, name="statistics"),
    path("a/<str:account_id>/statistics/export/", figures_views.export, name="statistics_export"),
    path("a/<str:account_id>/statistics/weekly/", weekly_views.weekly_ask, name="weekly"),
    path("weekly/<str:token>/", weekly_views.weekly_end, name="weekly_end"),
    path("a/<str:account_id>/messages/", views.messages, name="messages"),
    path("a/<str:account_id>/messages/newer/", views.newer, name="newer"),
    path("a/<str:account_id>/messages/export/csv/", views.export, {"kind": "csv"}, name="export_csv"),
    path("a/<str:account_id>/messages/export/ndjson/", views.export, {"kind": "ndjson"}, name="export_ndjson"),
    path("a/<str:account_id>/messages/views/", views.keep_view, name="view_keep"),
    path("a/<str:account_id>/messages/views/<str:view_id>/drop/", views.drop_view, name="view_drop"),
    path("a/<str:account_id>/messages/<str:message_id>/content/", views.content, name="content"),
    path("a/<str:account_id>/messages/<str:message_id>/content/html/", views.content_html, name="content_html"),
    path("a/<str:account_id>/messages/<str:message_id>/content/raw/", views.content_raw, name="content_raw"),
    path("a/<str:account_id>/messages/<str:message_id>/", views.message, name="message"),
    path("a/<str:account_id>/messages/<str:message_id>/command/", views.act, name="act"),
]
