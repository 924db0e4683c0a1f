"""Every error the service answers with, one exception for each arrow of bytes → data → valid data → result.

ServiceError
├── Malformed               400  malformed               the request cannot be read
├── Forbidden               403  forbidden               switched off by a setting
├── ModelNotFound           404  model_not_found
├── RouteNotFound           404  not_found
├── MethodNotAllowed        405  method_not_allowed
├── NotAcceptable           406  not_acceptable          no form of the answer is one that Accept allows
├── RequestTimeout          408  request_timeout         headers or body came too slowly
├── PayloadTooLarge         413  payload_too_large       bytes, pixels, images, tensors
├── UnsupportedMediaType    415  unsupported_media_type  not a format that we read
├── UnsupportedEncoding     415  unsupported_encoding    + Accept-Encoding; a body compressed in a way that we do not read
├── Invalid                 422
│   ├── InvalidImage        422  invalid_image           a format that we read, but broken, or a size the model does not take
│   ├── InvalidTensor       422  invalid_tensor
│   └── InvalidParameter    422  invalid_parameter
├── Overloaded              429  overloaded              + Retry-After
├── HeadersTooLarge         431  headers_too_large       said by the connection; the application has not heard of it
├── InternalError           500  internal                fixed text; the detail goes to the log
├── NotReady                503  not_ready               starting or stopping
└── DeadlineExceeded        504  timeout                 not answered within timeout_s

A message says what was expected and what came, and never repeats a payload. Nothing but exceptions belongs here.
"""

from __future__ import annotations


class ServiceError(Exception):
    """Root of the tree; never raised itself.

    Attributes:
        status: the HTTP status.
        code: the slug in the answer's `code` member, stable for clients.
    """

    status: int = 500
    code: str = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Malformed(ServiceError):
    """The request cannot be parsed at all: broken JSON, broken multipart, no body."""

    status, code = 400, "malformed"


class Forbidden(ServiceError):
    """The operation exists and is switched off; the message names the setting."""

    status, code = 403, "forbidden"


class ModelNotFound(ServiceError):
    """No loaded model, or no such version of it, has this name."""

    status, code = 404, "model_not_found"


class RouteNotFound(ServiceError):
    """No endpoint has this path."""

    status, code = 404, "not_found"


class MethodNotAllowed(ServiceError):
    """The endpoint exists and does not take this method."""

    status, code = 405, "method_not_allowed"


class NotAcceptable(ServiceError):
    """None of the media types in `Accept` can carry this answer."""

    status, code = 406, "not_acceptable"


class RequestTimeout(ServiceError):
    """The client sent its headers or its body more slowly than `body_timeout_s` allows."""

    status, code = 408, "request_timeout"


class PayloadTooLarge(ServiceError):
    """The body, an image's pixels (read from its header), the number of images or a tensor's elements pass their limit."""

    status, code = 413, "payload_too_large"


class UnsupportedMediaType(ServiceError):
    """The content is in no format that is read here."""

    status, code = 415, "unsupported_media_type"


class UnsupportedEncoding(ServiceError):
    """The body is compressed as a whole in a way that is not read here.

    Attributes:
        accepted: the encodings that are.
    """

    status, code = 415, "unsupported_encoding"

    def __init__(self, message: str, accepted: tuple[str, ...] = ("identity",)) -> None:
        super().__init__(message)
        self.accepted = accepted


class Invalid(ServiceError):
    """What came could be read and is not acceptable."""

    status = 422


class InvalidImage(Invalid):
    """An image that is truncated or corrupt, or of a size that the model does not take."""

    code = "invalid_image"


class InvalidTensor(Invalid):
    """A tensor whose data, shape and dtype do not fit each other or the operator."""

    code = "invalid_tensor"


class InvalidParameter(Invalid):
    """An unknown parameter, or a value outside its range."""

    code = "invalid_parameter"


class Overloaded(ServiceError):
    """The request could not be answered in time at the measured service rate.

    Attributes:
        retry_after_s: seconds, at least 1, after which a retry will find a place in the queue.
    """

    status, code = 429, "overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HeadersTooLarge(ServiceError):
    """The request's line and headers have more than 64 KiB; the connection ends."""

    status, code = 431, "headers_too_large"


class InternalError(ServiceError):
    """The service's own fault. The message is fixed; the cause is logged with the request's id."""

    status, code = 500, "internal"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has the detail under this request_id")


class NotReady(ServiceError):
    """The process is starting or stopping."""

    status, code = 503, "not_ready"


class DeadlineExceeded(ServiceError):
    """The answer was not there within the request's time limit; the work was dropped if it had not begun."""

    status, code = 504, "timeout"
