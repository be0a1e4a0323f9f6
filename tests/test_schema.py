from switch_jax.schema import Object, integer


def test_missing_fields_are_named_in_the_order_of_the_schema():
    names = [f"field_{number}" for number in (3, 1, 4, 5, 9, 2, 6)]
    _, errors = Object(dict.fromkeys(names, integer)).valid_fields({"field_4": 1})
    expected = [f"it has no {name!r}" for name in names if name != "field_4"]
    assert [str(error) for error in errors] == expected
