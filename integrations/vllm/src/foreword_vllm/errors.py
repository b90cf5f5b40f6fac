"""What is wrong with a prompt's file or with a request, in one line."""


class RequestError(Exception):
    """A request that cannot be answered; ``status`` is the one of HTTP that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class PromptError(RequestError):
    """A prompt whose file cannot be served, with the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 422)
