"""The native half of launch streams, as LLVM text: noting launches, and running what was noted.

While a thread records, `lampion_recorder` holds the address of `lampion_record` below, and every
kernel's entry calls it instead of its body. Launches of the recording thread go to Python
(`runtime/recording.py`), those of other threads run.

A stream runs in two steps. `lampion_stream_bind` checks the arrays of a call and writes their
addresses, and the numbers, to the places where kernels read them; `lampion_stream_run` calls
bodies one after the other with the interpreter's lock released, or, where launches form a group,
as tasks of the thread pool. No Python object is made between.
"""

from __future__ import annotations

from string import Template

from ..runtime import memory, recording
from ..runtime.loader import PROVIDERS, Image, load
from ..runtime.native import array_layout
from ..runtime.recording import Recording, RecordingError, recording_here
from ..runtime.stream import HEADER, Launch, Stream
from .compile import cached_object
from .pool import plainest
from .target import Target

__all__ = ["Launch", "Recording", "RecordingError", "Stream", "recording_here", "text"]

_TEXT = Template("""\
; Launch streams. What they do is told in lampion/codegen/stream.py.
@_Py_NoneStruct = external global i8
@state = internal global { i64, ptr, ptr, ptr } zeroinitializer, align 64

declare i64 @PyThread_get_thread_ident()
declare ptr @PyErr_Occurred()
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @Py_IncRef(ptr)
declare double @PyFloat_AsDouble(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @lampion_side_by_side(ptr, ptr, i64, i64)

; For the Python half: the thread that records, what it calls, and of a launch that is being noted
; the words and the body.
define ptr @lampion_stream_state() nounwind {
  ret ptr @state
}

; What entries call while somebody records: the callback with (code, arguments...), or the body.
define ptr @lampion_record(ptr %self, ptr %args, i64 %count, ptr %words, ptr %body) nounwind {
entry:
  %me = call i64 @PyThread_get_thread_ident()
  %owner = load i64, ptr @state, align 8
  %mine = icmp eq i64 %me, %owner
  br i1 %mine, label %look, label %run
run:
  call void %body(ptr %words, i64 1)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
look:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %note, label %fail
note:
  %words_at = getelementptr i8, ptr @state, i64 16
  store ptr %words, ptr %words_at, align 8
  %body_at = getelementptr i8, ptr @state, i64 24
  store ptr %body, ptr %body_at, align 8
  %size = add i64 %count, 1
  %stack = alloca ptr, i64 %size, align 8
  store ptr %self, ptr %stack, align 8
  br label %head
head:
  %i = phi i64 [ 0, %note ], [ %next, %copy ]
  %next = add i64 %i, 1
  %left = icmp slt i64 %i, %count
  br i1 %left, label %copy, label %call
copy:
  %from = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %from, align 8
  %to = getelementptr ptr, ptr %stack, i64 %next
  store ptr %object, ptr %to, align 8
  br label %head
call:
  %callback_at = getelementptr i8, ptr @state, i64 8
  %callback = load ptr, ptr %callback_at, align 8
  %answer = call ptr @PyObject_Vectorcall(ptr %callback, ptr %stack, i64 %size, ptr null)
  ret ptr %answer
fail:
  ret ptr null
}

; bind(header, own arrays..., inputs..., numbers...): None, or the place of an input that does not
; fit (-1: there are too many or too few).
define ptr @lampion_stream_bind(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %header_object = load ptr, ptr %args, align 8
  %header = call ptr @data_of(ptr %header_object)
  %own = call i64 @word(ptr %header, i64 $own)
  %inputs = call i64 @word(ptr %header, i64 $inputs)
  %numbers = call i64 @word(ptr %header, i64 $numbers)
  %arrays = add i64 %own, %inputs
  %most = add i64 %arrays, %numbers
  %all = add i64 %most, 1
  %fits = icmp eq i64 %all, %count
  br i1 %fits, label %begin, label %wrong
begin:
  %objects = getelementptr ptr, ptr %args, i64 1
  %bases = call ptr @pointer(ptr %header, i64 $bases)
  %expected = call ptr @pointer(ptr %header, i64 $expected)
  %class = call ptr @pointer(ptr %header, i64 $array_type)
  br label %next_array
next_array:
  %i = phi i64 [ 0, %begin ], [ %i1, %keep ]
  %facts = phi ptr [ %expected, %begin ], [ %facts1, %keep ]
  %left = icmp slt i64 %i, %arrays
  br i1 %left, label %look, label %next_number
look:
  %object_at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object_at, align 8
  %given = icmp sge i64 %i, %own
  br i1 %given, label %check, label %keep
check:
  %after = call ptr @checked(ptr %object, ptr %facts, ptr %class)
  %refused = icmp eq ptr %after, null
  br i1 %refused, label %bad, label %keep
keep:
  %facts1 = phi ptr [ %facts, %look ], [ %after, %check ]
  %data = call ptr @data_of(ptr %object)
  %base_at = getelementptr ptr, ptr %bases, i64 %i
  store ptr %data, ptr %base_at, align 8
  %i1 = add i64 %i, 1
  br label %next_array
next_number:
  %n = phi i64 [ 0, %next_array ], [ %n1, %number ]
  %more = icmp slt i64 %n, %numbers
  br i1 %more, label %number, label %write
number:
  %place = add i64 %arrays, %n
  %number_at = getelementptr ptr, ptr %objects, i64 %place
  %float = load ptr, ptr %number_at, align 8
  %value = call double @PyFloat_AsDouble(ptr %float)
  %values = call ptr @pointer(ptr %header, i64 $values)
  %value_at = getelementptr double, ptr %values, i64 %n
  store double %value, ptr %value_at, align 8
  %n1 = add i64 %n, 1
  br label %next_number
write:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %patch, label %fail
patch:
  call void @patch(ptr %header, ptr %bases)
  call void @set_numbers(ptr %header)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
wrong:
  %none = call ptr @PyLong_FromLongLong(i64 -1)
  ret ptr %none
bad:
  %which = sub i64 %i, %own
  %answer = call ptr @PyLong_FromLongLong(i64 %which)
  ret ptr %answer
fail:
  ret ptr null
}

define internal i64 @word(ptr %header, i64 %place) nounwind alwaysinline {
  %at = getelementptr i64, ptr %header, i64 %place
  %word = load i64, ptr %at, align 8
  ret i64 %word
}

define internal ptr @pointer(ptr %header, i64 %place) nounwind alwaysinline {
  %at = getelementptr i64, ptr %header, i64 %place
  %pointer = load ptr, ptr %at, align 8
  ret ptr %pointer
}

define internal ptr @data_of(ptr %array) nounwind alwaysinline {
  %at = getelementptr i8, ptr %array, i64 $data
  %data = load ptr, ptr %at, align 8
  ret ptr %data
}

; Behind the facts of an input, if the object is an array of that dtype, shape and strides.
; facts: dtype, rank, sizes, strides.
define internal ptr @checked(ptr %object, ptr %facts, ptr %class) nounwind {
entry:
  %type_at = getelementptr i8, ptr %object, i64 $type
  %type = load ptr, ptr %type_at, align 8
  %is_array = icmp eq ptr %type, %class
  br i1 %is_array, label %kind, label %refuse
kind:
  %dtype_at = getelementptr i8, ptr %object, i64 $dtype
  %dtype = load ptr, ptr %dtype_at, align 8
  %expected = load ptr, ptr %facts, align 8
  %same = icmp eq ptr %dtype, %expected
  br i1 %same, label %ranks, label %refuse
ranks:
  %nd_at = getelementptr i8, ptr %object, i64 $nd
  %nd32 = load i32, ptr %nd_at, align 4
  %nd = sext i32 %nd32 to i64
  %rank_at = getelementptr i64, ptr %facts, i64 1
  %rank = load i64, ptr %rank_at, align 8
  %sizes = getelementptr i64, ptr %facts, i64 2
  %steps = getelementptr i64, ptr %sizes, i64 %rank
  %end = getelementptr i64, ptr %steps, i64 %rank
  %same_rank = icmp eq i64 %nd, %rank
  br i1 %same_rank, label %begin, label %refuse
begin:
  %dimensions_at = getelementptr i8, ptr %object, i64 $dimensions
  %dimensions = load ptr, ptr %dimensions_at, align 8
  %strides_at = getelementptr i8, ptr %object, i64 $strides
  %strides = load ptr, ptr %strides_at, align 8
  br label %axis
axis:
  %d = phi i64 [ 0, %begin ], [ %d1, %fine ]
  %d1 = add i64 %d, 1
  %left = icmp slt i64 %d, %rank
  br i1 %left, label %size, label %accept
size:
  %dimension_at = getelementptr i64, ptr %dimensions, i64 %d
  %dimension = load i64, ptr %dimension_at, align 8
  %size_at = getelementptr i64, ptr %sizes, i64 %d
  %wanted = load i64, ptr %size_at, align 8
  %same_size = icmp eq i64 %dimension, %wanted
  br i1 %same_size, label %step, label %refuse
step:  ; the step along an axis of one element says nothing
  %stride_at = getelementptr i64, ptr %strides, i64 %d
  %stride = load i64, ptr %stride_at, align 8
  %step_at = getelementptr i64, ptr %steps, i64 %d
  %wanted_step = load i64, ptr %step_at, align 8
  %same_step = icmp eq i64 %stride, %wanted_step
  %single = icmp sle i64 %dimension, 1
  %good = or i1 %same_step, %single
  br i1 %good, label %fine, label %refuse
fine:
  br label %axis
accept:
  ret ptr %end
refuse:
  ret ptr null
}

; Writes the addresses: a table of (place, number of the base, offset).
define internal void @patch(ptr %header, ptr %bases) nounwind {
entry:
  %count = call i64 @word(ptr %header, i64 $patches)
  %table = call ptr @pointer(ptr %header, i64 $patch_table)
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %i1 = add i64 %i, 1
  %left = icmp slt i64 %i, %count
  br i1 %left, label %one, label %end
one:
  %row = getelementptr [3 x i64], ptr %table, i64 %i
  %to = load ptr, ptr %row, align 8
  %number_at = getelementptr i64, ptr %row, i64 1
  %number = load i64, ptr %number_at, align 8
  %offset_at = getelementptr i64, ptr %row, i64 2
  %offset = load i64, ptr %offset_at, align 8
  %base_at = getelementptr ptr, ptr %bases, i64 %number
  %base = load ptr, ptr %base_at, align 8
  %address = getelementptr i8, ptr %base, i64 %offset
  store ptr %address, ptr %to, align 8
  br label %head
end:
  ret void
}

; Writes the numbers: a table of (place, number).
define internal void @set_numbers(ptr %header) nounwind {
entry:
  %count = call i64 @word(ptr %header, i64 $sets)
  %table = call ptr @pointer(ptr %header, i64 $set_table)
  %values = call ptr @pointer(ptr %header, i64 $values)
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %i1 = add i64 %i, 1
  %left = icmp slt i64 %i, %count
  br i1 %left, label %one, label %end
one:
  %row = getelementptr [2 x i64], ptr %table, i64 %i
  %to = load ptr, ptr %row, align 8
  %number_at = getelementptr i64, ptr %row, i64 1
  %number = load i64, ptr %number_at, align 8
  %value_at = getelementptr double, ptr %values, i64 %number
  %value = load double, ptr %value_at, align 8
  store double %value, ptr %to, align 8
  br label %head
end:
  ret void
}

; run(header, first, last): launches in order, those of a group side by side. None, or the place of
; the one that raised its flag.
define ptr @lampion_stream_run(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %header_object = load ptr, ptr %args, align 8
  %header = call ptr @data_of(ptr %header_object)
  %first_at = getelementptr ptr, ptr %args, i64 1
  %first_object = load ptr, ptr %first_at, align 8
  %first = call i64 @PyLong_AsLongLong(ptr %first_object)
  %last_at = getelementptr ptr, ptr %args, i64 2
  %last_object = load ptr, ptr %last_at, align 8
  %last = call i64 @PyLong_AsLongLong(ptr %last_object)
  %table = call ptr @pointer(ptr %header, i64 $launches)
  %thread = call ptr @PyEval_SaveThread()
  br label %head
head:
  %i = phi i64 [ %first, %entry ], [ %behind, %next ]
  %left = icmp slt i64 %i, %last
  br i1 %left, label %look, label %end
look:
  %row = getelementptr [4 x ptr], ptr %table, i64 %i
  %group_at = getelementptr ptr, ptr %row, i64 3
  %group = load i64, ptr %group_at, align 8
  %alone = icmp eq i64 %group, 0
  br i1 %alone, label %launch, label %together
together:  ; the number of launches, and in the lowest bit whether sleeping threads are woken
  %wakes = and i64 %group, 1
  %size = lshr i64 %group, 1
  %rest = sub i64 %last, %i
  %members = call i64 @llvm.smin.i64(i64 %size, i64 %rest)
  %after = add i64 %i, %members
  call void @lampion_side_by_side(ptr @members, ptr %row, i64 %members, i64 %wakes)
  br label %next
launch:
  %i1 = add i64 %i, 1
  %body = load ptr, ptr %row, align 8
  %words_at = getelementptr ptr, ptr %row, i64 1
  %words = load ptr, ptr %words_at, align 8
  call void %body(ptr %words, i64 0)
  %flag_at = getelementptr ptr, ptr %row, i64 2
  %flag = load ptr, ptr %flag_at, align 8
  %plain = icmp eq ptr %flag, null
  br i1 %plain, label %next, label %test
test:
  %raised = load i64, ptr %flag, align 8
  %stop = icmp ne i64 %raised, 0
  br i1 %stop, label %stopped, label %next
next:
  %behind = phi i64 [ %after, %together ], [ %i1, %launch ], [ %i1, %test ]
  br label %head
end:
  call void @PyEval_RestoreThread(ptr %thread)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
stopped:
  call void @PyEval_RestoreThread(ptr %thread)
  %answer = call ptr @PyLong_FromLongLong(i64 %i)
  ret ptr %answer
}

; Some launches of a group: they raise no flags. What one hands to the pool it runs alone.
define internal void @members(ptr %rows, i64 %first, i64 %last, i64 %worker) nounwind {
entry:
  br label %head
head:
  %i = phi i64 [ %first, %entry ], [ %i1, %one ]
  %i1 = add i64 %i, 1
  %left = icmp slt i64 %i, %last
  br i1 %left, label %one, label %end
one:
  %row = getelementptr [4 x ptr], ptr %rows, i64 %i
  %body = load ptr, ptr %row, align 8
  %words_at = getelementptr ptr, ptr %row, i64 1
  %words = load ptr, ptr %words_at, align 8
  call void %body(ptr %words, i64 0)
  br label %head
end:
  ret void
}
""")


def text(target: Target) -> str:
    """Launch streams as LLVM text."""
    head = object.__basicsize__
    places = {name: place for place, name in enumerate(HEADER)}
    return _TEXT.substitute(places, **array_layout()._asdict(), dtype=head + 40,
                            type=memory.layout().type)


def _image() -> Image:
    target = plainest()
    return load(cached_object("stream", text(target), target))


PROVIDERS["lampion_recorder"] = recording.cell
recording.NATIVE.append(_image)
