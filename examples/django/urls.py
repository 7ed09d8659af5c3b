"""Where each view is found."""

import views
from django.urls import path

urlpatterns = [
    path("", views.index),
    path("slow", views.slow),
    path("upload", views.upload),
    path("download/<int:mebibytes>", views.download),
    path("events", views.events),
]
