"""What can go wrong, one class a mistake. Each is also the builtin that a caller would expect.

    StapesError
    ├── InvalidInput      TypeError           this kind of object is no clip
    ├── InvalidOption     ValueError          an option's value makes no sense (also RuntimeError, as torch.topk raises for a negative k)
    ├── AudioError        ValueError          the clip cannot be classified
    │   ├── AudioNotFound   FileNotFoundError
    │   ├── AudioIsFolder   IsADirectoryError
    │   ├── DownloadError   ConnectionError     an address did not give its file
    │   ├── LimitExceeded                     longer, or larger, than the operator allows
    │   ├── MalformedAudio                    nothing in it can be decoded
    │   └── ClipTooShort    RuntimeError        fewer samples than the model needs (torch raises it for them)
    ├── ModelError        ValueError          the file is not a model that this version can run
    │   └── ModelNotFound   FileNotFoundError
    ├── DeviceError       RuntimeError        the device asked for did not come up
    ├── MissingExtra      ImportError         an optional dependency is not installed
    └── ExportError       RuntimeError        a checkpoint did not become an artifact
        ├── CheckpointError ValueError        the checkpoint is refused, with the reason
        └── ParityError                       the artifact does not answer as the checkpoint does
            └── AccuracyError                 it is right less often, beyond what was allowed

Every message is one sentence or two: what was given, what was expected, what to do. AudioWarning (UserWarning) says that there is an
answer, but not of all the sound: a truncated file, or a clip longer than the model reads.
"""


class StapesError(Exception):
    """Base of every error that stapes raises on purpose."""


class InvalidInput(StapesError, TypeError):
    """This kind of object is no clip."""


class InvalidOption(StapesError, ValueError, RuntimeError):
    """An option's value makes no sense."""


class AudioError(StapesError, ValueError):
    """The clip cannot be classified."""


class AudioNotFound(AudioError, FileNotFoundError):
    """No file at that path."""


class AudioIsFolder(AudioError, IsADirectoryError):
    """A folder where a file was expected."""


class DownloadError(AudioError, ConnectionError):
    """An address did not give its file."""


class LimitExceeded(AudioError):
    """The clip is longer, or its file larger, than the operator allows."""


class MalformedAudio(AudioError):
    """Nothing in the bytes can be decoded as audio."""


class ClipTooShort(AudioError, RuntimeError):
    """The clip has fewer samples than the model needs for an answer."""


class ModelError(StapesError, ValueError):
    """The file is not a model that this version of stapes can run."""


class ModelNotFound(ModelError, FileNotFoundError):
    """No model at that path."""


class DeviceError(StapesError, RuntimeError):
    """The device that was asked for is not there or did not come up."""


class MissingExtra(StapesError, ImportError):
    """An optional dependency is needed and not installed."""


class ExportError(StapesError, RuntimeError):
    """A checkpoint did not become an artifact."""


class CheckpointError(ExportError, ValueError):
    """The checkpoint is refused; the message says why and what to do."""


class ParityError(ExportError):
    """The artifact does not answer as the checkpoint does; nothing was written."""


class AccuracyError(ParityError):
    """The artifact is right less often than the checkpoint, by more points than was allowed; nothing was written."""


class AudioWarning(UserWarning):
    """There is an answer, but not of all the sound: the file is truncated, or the clip longer than the model reads."""
