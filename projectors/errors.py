"""The errors that this package raises about its own inputs."""


class ProjectorError(ValueError):
    """A projector, its tower or one of its files cannot be used as given.

    The message is one line: what came, what is needed, what to do.
    """


class DivergedError(ProjectorError):
    """The loss or a parameter of a fit is no longer finite; `synth.errors` has one of its own.

    Attributes:
        step: index of the step that diverged, from 0.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
