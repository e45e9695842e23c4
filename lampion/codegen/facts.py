"""Facts about Python objects, compared in one native call, as LLVM text.

A table (`compiler/quick.py`) lists what was seen: words in memory, entries of dicts, elements of
lists and dicts in their order. All of them are pointers to objects that the table's owner keeps
alive, so equal pointers mean the same objects. Nothing here runs Python code: keys are looked up by
the hash they had, and keys that are not the very same object count as others.
"""

from __future__ import annotations

from string import Template

from ..runtime.loader import Image, load
from ..runtime.native import array_layout
from .compile import cached_object
from .pool import plainest
from .target import Target

__all__ = ["image", "text"]

_TEXT = Template("""\
; Facts about Python objects. What they are is told in lampion/codegen/facts.py.
@_Py_NoneStruct = external global i8

declare void @Py_IncRef(ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Clear()
declare ptr @PyLong_FromLongLong(i64)
declare ptr @_PyDict_GetItem_KnownHash(ptr, ptr, i64)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)

; facts(table): None where all is as it was seen, else the number of the first kind that is not.
; The table: for words, entries, lists and dicts each how many there are, and where their rows are.
define ptr @lampion_facts(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %array = load ptr, ptr %args, align 8
  %table_at = getelementptr i8, ptr %array, i64 $data
  %table = load ptr, ptr %table_at, align 8
  %words = call i1 @words(ptr %table)
  br i1 %words, label %look, label %end
look:
  %entries_at = getelementptr i64, ptr %table, i64 2
  %entries = call i1 @entries(ptr %entries_at)
  br i1 %entries, label %leaf, label %end
leaf:
  %lists_at = getelementptr i64, ptr %table, i64 4
  %lists = call i1 @lists(ptr %lists_at)
  br i1 %lists, label %turn, label %end
turn:
  %dicts_at = getelementptr i64, ptr %table, i64 6
  %dicts = call i1 @dicts(ptr %dicts_at)
  br i1 %dicts, label %same, label %end
same:
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
end:
  %kind = phi i64 [ 0, %entry ], [ 1, %look ], [ 2, %leaf ], [ 3, %turn ]
  %answer = call ptr @PyLong_FromLongLong(i64 %kind)
  ret ptr %answer
}
""")

# One kind: whether all its rows are as they were seen. The body ends with a branch to %next, where
# the row is, or to %other.
_KIND = Template("""\
define internal i1 @$name(ptr %head) nounwind {
entry:
$own  %count = load i64, ptr %head, align 8
  %rows_at = getelementptr i64, ptr %head, i64 1
  %rows = load ptr, ptr %rows_at, align 8
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %$last ]
  %i1 = add i64 %i, 1
  %left = icmp slt i64 %i, %count
  br i1 %left, label %row, label %fine
row:
  %row_at = getelementptr [$width x i64], ptr %rows, i64 %i
$fields$body
fine:
  ret i1 true
other:
  ret i1 false
}
""")


def _kind(name: str, fields: dict[str, str], last: str, body: str, own: str = "") -> str:
    """The function of a kind: a row's fields with their types, the block before the next row."""
    loads = "".join(
        f"  %{field}_at = getelementptr i64, ptr %row_at, i64 {i}\n"
        f"  %{field} = load {kind}, ptr %{field}_at, align 8\n"
        for i, (field, kind) in enumerate(fields.items()))
    return _KIND.substitute(name=name, own=own, last=last, width=len(fields), fields=loads,
                            body=body.rstrip())


_WORDS = _kind("words", {"place": "ptr", "wanted": "i64"}, "row", """\
  %word = load i64, ptr %place, align 8
  %same = icmp eq i64 %word, %wanted
  br i1 %same, label %next, label %other
""")

# The value is 0 where the key was absent.
_ENTRIES = _kind(
    "entries", {"dict": "ptr", "key": "ptr", "hash": "i64", "wanted": "ptr"}, "found", """\
  %value = call ptr @_PyDict_GetItem_KnownHash(ptr %dict, ptr %key, i64 %hash)
  %none = icmp eq ptr %value, null
  br i1 %none, label %absent, label %found
absent:
  %error = call ptr @PyErr_Occurred()
  %clean = icmp eq ptr %error, null
  br i1 %clean, label %found, label %failed
found:
  %same = icmp eq ptr %value, %wanted
  br i1 %same, label %next, label %other
failed:
  call void @PyErr_Clear()
  br label %other
""")

# How long a list is, and where its elements are noted.
_LISTS = _kind("lists", {"object": "ptr", "length": "i64", "noted": "ptr"}, "item", """\
  %size_at = getelementptr i8, ptr %object, i64 $list_size
  %size = load i64, ptr %size_at, align 8
  %as_long = icmp eq i64 %size, %length
  %items_at = getelementptr i8, ptr %object, i64 $list_items
  %items = load ptr, ptr %items_at, align 8
  br i1 %as_long, label %item, label %other
item:
  %k = phi i64 [ 0, %row ], [ %k1, %compare ]
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k, %length
  br i1 %more, label %compare, label %next
compare:
  %now_at = getelementptr ptr, ptr %items, i64 %k
  %now = load ptr, ptr %now_at, align 8
  %was_at = getelementptr ptr, ptr %noted, i64 %k
  %was = load ptr, ptr %was_at, align 8
  %same = icmp eq ptr %now, %was
  br i1 %same, label %item, label %other
""")

# How many entries a dict has, and where its keys and values are noted in turn.
_DICTS = _kind("dicts", {"object": "ptr", "length": "i64", "noted": "ptr"}, "stop", """\
  store i64 0, ptr %position, align 8
  br label %item
item:
  %k = phi i64 [ 0, %row ], [ %k1, %same_keys ]
  %k1 = add i64 %k, 1
  %any = call i32 @PyDict_Next(ptr %object, ptr %position, ptr %key, ptr %value)
  %done = icmp eq i32 %any, 0
  br i1 %done, label %stop, label %bound
stop:
  %all = icmp eq i64 %k, %length
  br i1 %all, label %next, label %other
bound:
  %fits = icmp slt i64 %k, %length
  br i1 %fits, label %compare, label %other
compare:
  %was = getelementptr [2 x ptr], ptr %noted, i64 %k
  %key_was = load ptr, ptr %was, align 8
  %key_now = load ptr, ptr %key, align 8
  %same_key = icmp eq ptr %key_now, %key_was
  br i1 %same_key, label %same_keys, label %other
same_keys:
  %value_at = getelementptr ptr, ptr %was, i64 1
  %value_was = load ptr, ptr %value_at, align 8
  %value_now = load ptr, ptr %value, align 8
  %same_value = icmp eq ptr %value_now, %value_was
  br i1 %same_value, label %item, label %other
""", own="""\
  %position = alloca i64, align 8
  %key = alloca ptr, align 8
  %value = alloca ptr, align 8
""")


def text(target: Target, list_size: int, list_items: int) -> str:
    """The module; where a list keeps its length and its elements, in bytes."""
    kinds = Template(_WORDS + _ENTRIES + _LISTS + _DICTS)
    places = {"list_size": list_size, "list_items": list_items}
    return _TEXT.substitute(data=array_layout().data) + kinds.substitute(places)


def image(list_size: int, list_items: int) -> Image:
    """The machine code, from the cache on disk where it is."""
    target = plainest()
    return load(cached_object("facts", text(target, list_size, list_items), target))
