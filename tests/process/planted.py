"""What a handler lets slip, and no log may show; importing that handler would register its kind."""

PLANTED = "planted-9c1e"
