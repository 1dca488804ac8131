"""What pages may ask for: shapes of requests, limits, images out of bytes."""

import base64
import binascii
from typing import Annotated

import numpy as np
from fastapi import HTTPException, Request
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from pocketcortex.core import InputError, decode_image
from pocketcortex.explorer.study import Study

MAX_UPLOAD_BYTES = 16 * 2**20
"""Largest picture file that may be sent."""
MAX_UPLOAD_PIXELS = 24 * 10**6
MAX_REQUEST_BYTES = 2**20
MAX_STEPS = 2000

Filter = tuple[Annotated[int, Field(ge=0, le=5)], Annotated[int, Field(ge=0, le=10_000)]]


class Asked(BaseModel):
    """An image, and filters to take out.

    Attributes
    ----------
    picture
        Name of one of the neuron's own pictures; or
    png
        base64 of a PNG of the model's size.
    without
        Filters taken out: stage (0..5) and number.
    """

    model_config = ConfigDict(extra="forbid")

    picture: Annotated[str, Field(max_length=40)] | None = None
    png: Annotated[str, Field(max_length=MAX_REQUEST_BYTES)] | None = None
    without: Annotated[list[Filter], Field(max_length=2000)] = []

    def image(self, study: Study) -> UInt8[np.ndarray, "3 h w"]:
        """Return the pixels.

        Raises
        ------
        InputError
            If there is no image, or not one of the model's size.
        """
        height, width = study.model.image_size
        if self.picture is not None:
            found = study.image(self.picture)
            if found is None:
                raise InputError(f"there is no picture {self.picture!r} yet")
            return found
        if self.png is None:
            raise InputError("no image was sent; name a picture or send a PNG")
        try:
            content = base64.b64decode(self.png, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError("the image is not base64") from error
        image = decode_image(content, "sent", max_pixels=4 * height * width)
        if image.shape[1:] != (height, width):
            raise InputError(
                f"the model takes images of {height} x {width}, got {image.shape[1]} x "
                f"{image.shape[2]}"
            )
        return image


class AskedSynthesis(BaseModel):
    """A synthesis to be watched.

    Attributes
    ----------
    seed
        Of the noise.
    n_steps
        At most so many.
    minimize
        Silence instead.
    """

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    n_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 300
    minimize: bool = False


async def read_body(request: Request, limit: int) -> bytes:
    """Return a request's body; more than `limit` bytes are refused before they are read.

    Raises
    ------
    HTTPException
        413, if there is more.
    """
    told = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    total = int(told) if told.isdigit() else 0
    if total <= limit:
        total = 0
        async for part in request.stream():
            total += len(part)
            if total > limit:
                break
            parts.append(part)
    if total > limit:
        raise HTTPException(413, f"at most {limit:,} bytes may be sent; make the file smaller")
    return b"".join(parts)
