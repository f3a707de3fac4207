"""The errors of the label codecs."""

from projectors.errors import ProjectorError


class CodecError(ProjectorError):
    """Labels that a codec cannot encode, or bytes that are not what they claim to be.

    The message is one line: what came, what is needed, what to do.
    """


class UnknownCodecError(CodecError):
    """A config that names no codec of this package.

    Attributes:
        codec_id: the name that was asked for.
    """

    def __init__(self, message: str, codec_id: str) -> None:
        super().__init__(message)
        self.codec_id = codec_id
