"""Facts about Python objects compared in one native call."""

import collections

import numpy as np
import pytest

import lampion as torch
from lampion.codegen import facts as native
from lampion.codegen.compile import compile_object
from lampion.codegen.target import TARGETS
from lampion.compiler.guards import Guards
from lampion.compiler.inputs import Memory, Source
from lampion.compiler.quick import Facts, layout


@pytest.fixture
def facts():
    if layout() is None:
        pytest.skip("no native code for this interpreter")
    return Facts()


def test_entries_that_are_replaced_removed_or_come(facts):
    key, table = torch.ones(1), collections.defaultdict(list)
    table[key] = first = [1]
    facts.entries([table, table], [key, "other"])
    holds = facts.close()
    assert holds() is None
    table["third"] = 3
    assert holds() is None
    table[key] = [1]
    assert holds() == 1
    table[key] = first
    assert holds() is None
    table["other"] = None
    assert holds() == 1
    del table["other"], table[key]
    assert holds() == 1 and key not in table


def test_keys_are_never_compared_by_code_of_the_users(facts):
    class Key:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            raise AssertionError("compared")

    table, key = {}, Key()
    facts.entries([table], [key])
    holds = facts.close()
    assert holds() is None
    table[key] = 1
    assert holds() == 1


def test_lists_and_dicts_in_their_order(facts):
    a, b, c = object(), object(), object()
    several, table, nothing = [a, b], {a: b, b: c}, []
    facts.contents([several, table, nothing])
    holds = facts.close()
    assert holds() is None
    for change, back in ((lambda: several.append(c), several.pop),
                         (lambda: nothing.append(c), nothing.pop),
                         (several.reverse, several.reverse),
                         (lambda: table.update({c: a}), lambda: table.pop(c)),
                         (lambda: table.update({a: c}), lambda: table.update({a: b}))):
        change()
        assert holds() in (2, 3)
        back()
        assert holds() is None
    table[a] = table.pop(a)  # the same entries the other way round
    assert holds() == 3


def test_cells_codes_classes_and_fields(facts):
    def around(x):
        return lambda: x

    def other_way(x):
        return lambda: -x

    class First:
        pass

    class Same:
        pass
    t, f, obj = torch.ones(2), around(1.5), First()
    facts.cells(f.__closure__)
    facts.codes([f])
    facts.classes([obj])
    facts.empty([obj.__dict__])
    for name in ("_rg", "_fn", "_a"):
        facts.fields([t], name)
    holds = facts.close()
    assert holds() is None
    for owner, name, value in ((f.__closure__[0], "cell_contents", 2.5),
                               (f, "__code__", other_way(1).__code__), (obj, "__class__", Same),
                               (t, "_rg", True), (t, "_fn", t), (t, "_a", t._a.copy())):
        held = getattr(owner, name)
        setattr(owner, name, value)
        assert holds() == 0, name
        setattr(owner, name, held)
        assert holds() is None, name
    obj.new = 1
    assert holds() == 0


def test_guards_look_at_values_where_objects_are_others():
    table = {"rate": 1000.5}
    guards = Guards()
    guards.entry(table, "rate", table["rate"], "rate")
    guards.close()
    assert guards.hold()
    for _ in range(40):  # longer than tables are made anew
        table["rate"] = float("1000.5")
        assert guards.hold()
    table["rate"] = 1000.25
    assert not guards.hold()


def test_memory_is_looked_at_again_where_a_tensor_gets_other_memory():
    weight = torch.ones(4)
    memory = Memory([Source("tensor", weight), Source("argument", 0)], [0])
    assert memory.apart([torch.ones(4)]) and memory.apart([torch.ones(8)[2:]])
    assert not memory.apart([weight.detach()]) and not memory.apart([weight[1:]])
    memory.note("code")
    assert memory.is_checked("code") and not memory.is_checked("other code")
    other = torch.zeros(8)
    weight.data = other[:4]
    assert memory.apart([torch.ones(4)]) and not memory.is_checked("code")
    assert not memory.apart([other[2:6]]) and memory.apart([other[4:]])


def test_memory_that_somebody_else_owns_is_compared_by_address():
    block = bytearray(64)
    weight = torch.frombuffer(block, dtype=torch.float32)
    memory = Memory([Source("tensor", weight), Source("argument", 0)], [0])
    again = torch.frombuffer(block, dtype=torch.float32, count=4)
    assert not memory.apart([again]) and memory.apart([torch.ones(8)[4:]])
    array = np.zeros(8, np.float32)
    mine, theirs = torch.from_numpy(array), torch.from_numpy(array)
    memory = Memory([Source("tensor", mine), Source("argument", 0)], [0])
    assert not memory.apart([theirs])


@pytest.mark.parametrize("target", ["avx512", "neon"])
def test_the_code_compiles_for(target):
    assert len(compile_object(native.text(TARGETS[target], 16, 24), TARGETS[target])) > 500
