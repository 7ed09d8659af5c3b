"""As little as Django needs: no database, no templates."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "of an example, and no secret")
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
USE_TZ = True
