"""What a user of Python may rely on."""

import inspect

import distill


def test_public_names_are_few_typed_and_documented():
    assert distill.__all__ == ["compress", "distill", "evaluate", "load"]
    for name in distill.__all__:
        function = getattr(distill, name)
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
            assert f"{parameter.name}: " in function.__doc__, (name, parameter.name)


def test_signature_of_the_one_call_is_frozen():
    parameters = inspect.signature(distill.distill).parameters
    assert list(parameters) == [
        "data", "recipe", "network", "teachers", "ipc", "budget_bytes", "out", "progress",
    ]  # fmt: skip
    assert list(inspect.signature(distill.evaluate).parameters) == [
        "set", "network", "teachers", "data", "device", "quiet", "settings",
    ]  # fmt: skip
