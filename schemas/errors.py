"""What the publisher's client raises. Nothing of kafka-python's comes through."""

from schemas.messages import DeadLetter


class LoadonceError(Exception):
    """The root of what the client raises for reasons outside the caller's code."""


class JobFailedError(LoadonceError):
    """The job became a dead letter."""

    def __init__(self, dead_letter: DeadLetter) -> None:
        super().__init__(f"{dead_letter.reason} ({dead_letter.stage}): {dead_letter.message}")
        self.reason = dead_letter.reason
        self.stage = dead_letter.stage
        self.message = dead_letter.message
        self.dead_letter = dead_letter


class PredictTimeoutError(LoadonceError):
    """Neither a prediction nor a dead letter of the job came in time. The job is published all the same."""


class BrokerUnavailableError(LoadonceError):
    """No broker answers, or it refuses this client."""


class AccessRefusedError(BrokerUnavailableError):
    """The broker refuses this client: authentication or authorization. Trying again does not help."""


class TopicMissingError(LoadonceError):
    """The broker has no topic of that name."""


class RecordTooLargeError(LoadonceError):
    """The job does not fit a record of the jobs topic."""
