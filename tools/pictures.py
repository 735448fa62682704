"""PNG pictures of fewer bytes."""

import io

from PIL import Image


def slim_png(png):
    """The bytes of a PNG with a palette of 256 colours, if they are fewer; else the same bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return min(small.getvalue(), png, key=len)
