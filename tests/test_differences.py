from switch_jax.differences import differences, listed


def test_what_differs_is_in_the_order_of_the_first_and_then_of_the_second():
    before = {"same": [1], "changed": "a", "gone": None, "number": 1}
    after = {"new": 0, "number": 1.0, "changed": "b" * 100, "same": [1]}
    changed, gone, new = differences(before, after)
    assert changed == f"changed 'a' -> '{'b' * 59}..."
    assert (gone, new) == ("gone None -> absent", "new absent -> 0")
    assert differences(after, after) == differences({}, {}) == []


def test_the_first_of_many_are_listed():
    assert listed("abcde") == "a, b, c, d and 1 more"
    assert (listed("abcd"), listed([])) == ("a, b, c, d", "")
