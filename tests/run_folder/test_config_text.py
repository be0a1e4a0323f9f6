from switch_jax.run_folder import config_values, value_of


def test_long_values_go_on_in_further_lines():
    text = (
        "# A = 0\nA = \\\n    'x'\nB = 2\n"
        "M.c = \\\n    {'inputs': 1,\n     'targets': 2}\nM.d = 3\n"
    )
    assert config_values(text) == {
        "A": "'x'",
        "B": "2",
        "M.c": "{'inputs': 1, 'targets': 2}",
        "M.d": "3",
    }


def test_macros_are_replaced_by_their_values():
    values = {"A": "%B", "B": "4", "M.a": "%A", "M.c": "{'x': %A, 'y': '%d'}", "M.d": "%s/GONE"}
    assert [value_of(name, values) for name in ("M.a", "M.c", "M.d")] == [
        "4",
        "{'x': 4, 'y': '%d'}",
        "%s/GONE",
    ]


def test_macros_in_a_circle_stay():
    values = {"A": "%B", "B": "%A", "M.a": "%A"}
    assert [value_of(name, values) for name in ("A", "M.a")] == ["%A", "%A"]
