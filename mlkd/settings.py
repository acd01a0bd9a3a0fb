"""The base class of everything that has settings: training configurations, methods, studies and sweeps."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mlkd.errors import closest_match

EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "path_type": "a path",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_type": "a text",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list",
}
"""What a value has to be, by the type of pydantic's error."""


class Settings(BaseModel):
    """Typed settings that cannot be changed after they were created; `replace` returns a changed copy.

    Types are strict: `true` is no number, and a number is no text. An unknown setting or a value of the wrong kind is
    a `ValueError` in one line, with the closest known name.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )

    title: ClassVar[str] = ""
    """What the error messages call these settings, such as "the method 'l2d'"."""

    def __init__(self, /, **settings: Any):
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(self.error_message(error)) from None

    def replace(self, **changes: Any) -> Self:
        """These settings with some of them changed, validated again.

        Raises:
            ValueError: an unknown setting (the closest known one is named) or a value of the wrong kind.
        """
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **changes})

    def as_dict(self) -> dict[str, Any]:
        """All settings as plain values, for JSON and YAML."""
        return self.model_dump(mode="json")

    @classmethod
    def error_message(cls, error: ValidationError) -> str:
        """pydantic's error as one line about the first wrong setting."""
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"][:1])) if first["loc"] else ""
        owner = f" of {cls.title}" if cls.title else ""
        if first["type"] == "extra_forbidden":
            return f"There is no setting {name!r}{owner}. Did you mean {closest_match(name, cls.model_fields)!r}?"
        if first["type"] == "missing":
            return f"`{name}`{owner} is missing."
        if first["type"] == "value_error":
            return str(first["ctx"]["error"])
        value = first["input"]
        alternatives = [problem for problem in error.errors() if problem["loc"][:1] == first["loc"][:1]]
        expected = [_expected(problem) for problem in alternatives]
        message = f"`{name}`{owner} is {value!r}, expected {' or '.join(dict.fromkeys(expected))}."
        if first["type"] == "literal_error" and isinstance(value, str):
            choices = [choice.strip(" '") for choice in first["ctx"]["expected"].replace(" or ", ", ").split(",")]
            message += f" Did you mean {closest_match(value, choices)!r}?"
        return message


def _expected(problem: Any) -> str:
    """What the value has to be, from one of pydantic's errors."""
    text = EXPECTED.get(problem["type"])
    if text is None:
        return problem["msg"].removeprefix("Input should be ").lower()
    return text.format(**problem.get("ctx", {})).replace("'", "") if "{" in text else text
