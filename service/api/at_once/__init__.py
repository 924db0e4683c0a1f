"""Requests that are answered at once, between the connection and ASGI: what was seen before, and takes less than a task for it.

A road gets a request whole and gives its answer, or the promise of one, or nothing. Whatever is not as expected, or fails, is left
to the application, which gets the same request from its beginning, and answers it or says what is wrong: no error is worded here.
"""
