"""What can be wrong with a field, as errors that pydantic collects; `validation` turns the first into an answer.

A complaint carries one of the API's codes and a message in which `{param}` stands for the path of the field.
"""

from pydantic_core import PydanticCustomError


def complaint(code: str, message: str, *, at: str = "", param: str = "") -> PydanticCustomError:
    """Build an error with one of the API's codes.

    `at` extends the path of the field (`[2]`, `.type`); `param` replaces it, for checks across fields.
    """
    return PydanticCustomError("complaint", "complaint", {"code": code, "message": message, "at": at, "param": param})


def wrong_type(expected: str, value: object, *, at: str = "") -> PydanticCustomError:
    return PydanticCustomError("wrong_type", "wrong_type", {"expected": expected, "value": value, "at": at})


def absent(at: str = "", *, param: str = "") -> PydanticCustomError:
    return complaint("missing_required_parameter", "Missing required parameter: '{param}'.", at=at, param=param)


def unsupported(param: str = "") -> PydanticCustomError:
    message = "Unsupported parameter: '{param}' is not supported with this model."
    return complaint("unsupported_parameter", message, param=param)


def empty_array(at: str = "", *, param: str = "") -> PydanticCustomError:
    message = "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return complaint("empty_array", message, at=at, param=param)


def array_too_long(limit: int, length: int) -> PydanticCustomError:
    message = (
        f"Invalid '{{param}}': array too long. Expected an array with maximum length {limit}, "
        f"but got an array with length {length} instead."
    )
    return complaint("array_above_max_length", message)


def string_too_long(limit: int, length: int, *, at: str = "") -> PydanticCustomError:
    message = (
        f"Invalid '{{param}}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead."
    )
    return complaint("string_above_max_length", message, at=at)


def empty_string(*, at: str = "") -> PydanticCustomError:
    return complaint("invalid_value", "Invalid '{param}': a string must not be empty.", at=at)


def json_type(value: object) -> str:
    """Name a value's JSON type with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
