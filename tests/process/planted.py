"""What a handler lets slip, and no log may show. By itself: importing a handler registers its kind."""

PLANTED = "planted-9c1e"
