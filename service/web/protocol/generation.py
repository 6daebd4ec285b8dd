"""Text generation, in whichever shape: what a plan needs to know of completions and chat alike."""

from abc import abstractmethod

from pydantic import ValidationInfo

from service.web.complaints import complaint
from service.web.constraints import Constrained, only_one
from service.web.protocol.base import RequestBody
from service.web.protocol.sampling import Extensions, Sampling


class GenerationRequest(Extensions, Sampling, RequestBody):
    """A request for generated text. Bases are listed last first: that is the order of their fields."""

    def _check_together(self, info: ValidationInfo) -> None:
        assert info.context is not None, "bodies are validated with the service's settings"
        self._check_candidates(info.context.max_n)
        if self.stream_options is not None and not self.stream:
            message = "The '{param}' parameter is only allowed when 'stream' is enabled."
            raise complaint("invalid_value", message, param="stream_options")
        limit = self.token_limit
        if limit is not None and self.min_tokens > limit:
            message = f"Invalid '{{param}}': more than the token limit of {limit}."
            raise complaint("invalid_value", message, param="min_tokens")
        if self.constrained is not None and self.ignore_eos:
            message = "Invalid '{param}': an answer of a given form ends with that form."
            raise complaint("invalid_value", message, param="ignore_eos")
        if self.prompt_logprobs is not None and self.stream:
            message = "The '{param}' parameter is not allowed when 'stream' is enabled."
            raise complaint("invalid_value", message, param="prompt_logprobs")

    def _check_candidates(self, max_n: int) -> None:
        if self.best_of is None or max(self.best_of, 1) == self.n:
            return
        if self.best_of < self.n:
            raise complaint("invalid_value", "Invalid '{param}': it must not be smaller than 'n'.", param="best_of")
        if self.stream:
            message = "The '{param}' parameter is only allowed to exceed 'n' when 'stream' is not enabled."
            raise complaint("invalid_value", message, param="best_of")
        if self.n * self.best_of > max_n:
            message = (
                f"Invalid '{{param}}': integer above maximum value. Expected 'n' times '{{param}}' <= {max_n}, "
                f"but got {self.n * self.best_of} instead."
            )
            raise complaint("integer_above_max_value", message, param="best_of")

    @property
    def num_candidates(self) -> int:
        """How many answers to generate for each prompt; the best `n` of them are returned."""
        return max(self.n, self.best_of or 1)

    @property
    def constrained(self) -> Constrained | None:
        """What the answer must look like."""
        names = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice")
        return only_one({name: getattr(self, name) for name in (*names, "regex", "json_schema")})

    @property
    @abstractmethod
    def token_limit(self) -> int | None:
        """Most tokens to generate; None: as many as the context leaves."""

    @property
    @abstractmethod
    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None: no log-probabilities at all."""

    @property
    @abstractmethod
    def continues_text(self) -> bool:
        """Whether the answer goes on in the text of the prompt, where it may begin with a space."""

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def has_running_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats is True
