"""Any size, exactly: a plain CNN compiled so that images of different sizes share a canvas, or lie on many tiles."""
