"""The native half of the memory pool, as LLVM text: an ndarray from pooled memory in one call.

A block is memory behind a header of 64 bytes: its size class, its capacity, and the next free block
of its class. Taking a block and giving it back are a few instructions; where a class has no free
block, the Python half (`runtime/memory.py`) is asked to find one. Arrays own their memory as any
other: NumPy hands it back through the handler that the array carries (NumPy enhancement proposal
49), and arrays that users make are not affected.

Size classes: multiples of 64 bytes up to 1 KiB, then eight to every doubling.
"""

from __future__ import annotations

from string import Template

from ..runtime import memory
from ..runtime.loader import Image, load
from .compile import cached_object
from .pool import plainest
from .target import Target

__all__ = ["install", "text"]

_HEAD = object.__basicsize__
_FIELDS = {name: 8 * i for i, name in enumerate(memory.STATE)}

_TEXT = Template("""\
; The memory pool. What it does is told in lampion/codegen/allocator.py.
@state = internal global [$state_size x i8] zeroinitializer, align 64
@free = internal global [$classes x ptr] zeroinitializer, align 64
@handler = internal global { [127 x i8], i8, ptr, ptr, ptr, ptr, ptr } {
  [127 x i8] c"lampion$padding", i8 1, ptr null,
  ptr @malloc_, ptr @calloc_, ptr @realloc_, ptr @free_ }, align 16

declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare i64 @PyLong_AsSsize_t(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare void @PyErr_Clear()
declare void @PyErr_WriteUnraisable(ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)

; empty(shape, dtype): an ndarray. Anything but a tuple of ints and a plain dtype goes to `general`.
define ptr @lampion_empty(ptr %self, ptr %args, i64 %count) nounwind {
entry:
  %sizes = alloca [64 x i64], align 8
  %two = icmp eq i64 %count, 2
  br i1 %two, label %types, label %general
types:
  %shape = load ptr, ptr %args, align 8
  %dtype_at = getelementptr ptr, ptr %args, i64 1
  %dtype = load ptr, ptr %dtype_at, align 8
  %shape_type = call ptr @type_of(ptr %shape)
  %tuple = load ptr, ptr $tuple, align 8
  %is_tuple = icmp eq ptr %shape_type, %tuple
  br i1 %is_tuple, label %check_dtype, label %general
check_dtype:
  %dtype_type = call ptr @type_of(ptr %dtype)
  %dtype_meta = call ptr @type_of(ptr %dtype_type)
  %meta = load ptr, ptr $dtype_meta, align 8
  %is_dtype = icmp eq ptr %dtype_meta, %meta
  br i1 %is_dtype, label %check_kind, label %general
check_kind:
  %number_at = getelementptr i8, ptr %dtype, i64 $type_number
  %number = load i32, ptr %number_at, align 4
  %builtin = icmp ult i32 %number, 17
  %half = icmp eq i32 %number, 23
  %user = icmp uge i32 %number, 256
  %plain = or i1 %builtin, %half
  %simple = or i1 %plain, %user
  br i1 %simple, label %check_rank, label %general
check_rank:
  %item_at = getelementptr i8, ptr %dtype, i64 $item_size
  %item = load i64, ptr %item_at, align 8
  %rank = call i64 @PyTuple_Size(ptr %shape)
  %few = icmp ule i64 %rank, 32
  br i1 %few, label %next_size, label %general
next_size:
  %i = phi i64 [ 0, %check_rank ], [ %i1, %good_size ]
  %bytes = phi i64 [ %item, %check_rank ], [ %product, %good_size ]
  %left = icmp ult i64 %i, %rank
  br i1 %left, label %read_size, label %allocate
read_size:
  %object = call ptr @PyTuple_GetItem(ptr %shape, i64 %i)
  %size = call i64 @PyLong_AsSsize_t(ptr %object)
  %wrong = icmp slt i64 %size, 0
  br i1 %wrong, label %clear, label %good_number
good_number:
  %multiplied = call { i64, i1 } @llvm.smul.with.overflow.i64(i64 %bytes, i64 %size)
  %product = extractvalue { i64, i1 } %multiplied, 0
  %overflow = extractvalue { i64, i1 } %multiplied, 1
  br i1 %overflow, label %general, label %good_size
good_size:
  %size_at = getelementptr i64, ptr %sizes, i64 %i
  store i64 %size, ptr %size_at, align 8
  %i1 = add i64 %i, 1
  br label %next_size
allocate:
  %array = call ptr @array(ptr %dtype, i64 %rank, ptr %sizes, i64 %bytes)
  ret ptr %array
clear:
  call void @PyErr_Clear()
  br label %general
general:
  %callable = load ptr, ptr $general, align 8
  %result = call ptr @PyObject_Vectorcall(ptr %callable, ptr %args, i64 %count, ptr null)
  ret ptr %result
}

define internal ptr @type_of(ptr %object) nounwind alwaysinline {
  %at = getelementptr i8, ptr %object, i64 $type
  %type = load ptr, ptr %at, align 8
  ret ptr %type
}

; An array over a block; from NumPy's own memory where it is small or the pool has nothing.
define internal ptr @array(ptr %dtype, i64 %rank, ptr %sizes, i64 %bytes) nounwind {
entry:
  %new = load ptr, ptr $new_from_descr, align 8
  %class = load ptr, ptr $array_type, align 8
  call void @Py_IncRef(ptr %dtype)  ; NumPy takes this reference over
  %least = load i64, ptr $least, align 8
  %small = icmp slt i64 %bytes, %least
  %short_rank = trunc i64 %rank to i32
  br i1 %small, label %numpy, label %pool
pool:
  %data = call ptr @take(i64 %bytes)
  %none = icmp eq ptr %data, null
  br i1 %none, label %numpy, label %wrap
numpy:
  %own = call ptr %new(ptr %class, ptr %dtype, i32 %short_rank, ptr %sizes, ptr null, ptr null,
                       i32 0, ptr null)
  ret ptr %own
wrap:  ; flags: C-contiguous, aligned, writeable
  %pooled = call ptr %new(ptr %class, ptr %dtype, i32 %short_rank, ptr %sizes, ptr null, ptr %data,
                          i32 1281, ptr null)
  %failed = icmp eq ptr %pooled, null
  br i1 %failed, label %undo, label %hand_over
undo:
  call void @free_(ptr null, ptr %data, i64 0)
  ret ptr null
hand_over:  ; the array owns its memory and knows who frees it
  %flags_at = getelementptr i8, ptr %pooled, i64 $flags
  %flags = load i32, ptr %flags_at, align 4
  %owning = or i32 %flags, 4
  store i32 %owning, ptr %flags_at, align 4
  %capsule = load ptr, ptr $capsule, align 8
  call void @Py_IncRef(ptr %capsule)
  %handler_at = getelementptr i8, ptr %pooled, i64 $mem_handler
  store ptr %capsule, ptr %handler_at, align 8
  ret ptr %pooled
}

; The number of the smallest class that holds %bytes.
define internal i64 @class_of(i64 %bytes) nounwind {
  %some = call i64 @llvm.umax.i64(i64 %bytes, i64 1)
  %last = sub i64 %some, 1
  %round = or i64 %last, 63
  %zeros = call i64 @llvm.ctlz.i64(i64 %round, i1 true)
  %doubling = sub i64 63, %zeros
  %shift = sub i64 %doubling, 3
  %leading = lshr i64 %round, %shift
  %eighth = and i64 %leading, 7
  %scaled = shl i64 %doubling, 3
  %number = or i64 %scaled, %eighth
  ret i64 %number
}

; A block for %bytes, or null.
define internal ptr @take(i64 %bytes) nounwind {
entry:
  %class = call i64 @class_of(i64 %bytes)
  %known = icmp ult i64 %class, $classes
  br i1 %known, label %try, label %fail
try:
  %quick = call ptr @pop(i64 %class)
  %found = icmp ne ptr %quick, null
  br i1 %found, label %count, label %ask
ask:
  %number = call ptr @PyLong_FromLongLong(i64 %class)
  %callable = load ptr, ptr $grow, align 8
  %answer = call ptr @PyObject_CallOneArg(ptr %callable, ptr %number)
  call void @Py_DecRef(ptr %number)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %clear, label %retry
retry:
  call void @Py_DecRef(ptr %answer)
  %second = call ptr @pop(i64 %class)
  %lucky = icmp ne ptr %second, null
  br i1 %lucky, label %count, label %fail
clear:
  call void @PyErr_WriteUnraisable(ptr %callable)
  br label %fail
fail:
  ret ptr null
count:
  %block = phi ptr [ %quick, %try ], [ %second, %retry ]
  %capacity_at = getelementptr i8, ptr %block, i64 -56
  %capacity = load i64, ptr %capacity_at, align 8
  %before = atomicrmw add ptr $allocated, i64 %capacity monotonic
  %now = add i64 %before, %capacity
  %most = atomicrmw umax ptr $peak, i64 %now monotonic
  ret ptr %block
}

; A free block of a class, no longer free; or null.
define ptr @pop(i64 %class) nounwind {
  %list = getelementptr ptr, ptr @free, i64 %class
  call void @lock()
  %block = load ptr, ptr %list, align 8
  %none = icmp eq ptr %block, null
  br i1 %none, label %end, label %unlink
unlink:
  %next_at = getelementptr i8, ptr %block, i64 -48
  %next = load ptr, ptr %next_at, align 8
  store ptr %next, ptr %list, align 8
  br label %end
end:
  call void @unlock()
  ret ptr %block
}

; Makes a block free in a class (its own, or a lower one that lacks one).
define void @push(i64 %class, ptr %block) nounwind {
  %list = getelementptr ptr, ptr @free, i64 %class
  %next_at = getelementptr i8, ptr %block, i64 -48
  call void @lock()
  %next = load ptr, ptr %list, align 8
  store ptr %next, ptr %next_at, align 8
  store ptr %block, ptr %list, align 8
  call void @unlock()
  ret void
}

define internal void @lock() nounwind {
entry:
  br label %try
try:
  %before = atomicrmw xchg ptr $lock, i64 1 acquire
  %free = icmp eq i64 %before, 0
  br i1 %free, label %end, label %try
end:
  ret void
}

define internal void @unlock() nounwind {
  store atomic i64 0, ptr $lock release, align 8
  ret void
}

; The four functions of the handler.
define internal ptr @malloc_(ptr %ctx, i64 %size) nounwind {
  %block = call ptr @take(i64 %size)
  ret ptr %block
}

define internal ptr @calloc_(ptr %ctx, i64 %count, i64 %size) nounwind {
entry:
  %multiplied = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %count, i64 %size)
  %bytes = extractvalue { i64, i1 } %multiplied, 0
  %overflow = extractvalue { i64, i1 } %multiplied, 1
  br i1 %overflow, label %fail, label %try
try:
  %block = call ptr @take(i64 %bytes)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %clear
clear:
  call void @llvm.memset.p0.i64(ptr %block, i8 0, i64 %bytes, i1 false)
  ret ptr %block
fail:
  ret ptr null
}

define internal void @free_(ptr %ctx, ptr %block, i64 %size) nounwind {
  %none = icmp eq ptr %block, null
  br i1 %none, label %end, label %give_back
give_back:
  %class_at = getelementptr i8, ptr %block, i64 -64
  %class = load i64, ptr %class_at, align 8
  %capacity_at = getelementptr i8, ptr %block, i64 -56
  %capacity = load i64, ptr %capacity_at, align 8
  %before = atomicrmw sub ptr $allocated, i64 %capacity monotonic
  call void @push(i64 %class, ptr %block)
  br label %end
end:
  ret void
}

define internal ptr @realloc_(ptr %ctx, ptr %block, i64 %size) nounwind {
  %none = icmp eq ptr %block, null
  br i1 %none, label %fresh, label %look
fresh:
  %new = call ptr @take(i64 %size)
  ret ptr %new
look:
  %capacity_at = getelementptr i8, ptr %block, i64 -56
  %capacity = load i64, ptr %capacity_at, align 8
  %fits = icmp ule i64 %size, %capacity
  br i1 %fits, label %same, label %move
same:
  ret ptr %block
move:
  %larger = call ptr @take(i64 %size)
  %failed = icmp eq ptr %larger, null
  br i1 %failed, label %end, label %copy
copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %larger, ptr %block, i64 %capacity, i1 false)
  call void @free_(ptr null, ptr %block, i64 0)
  br label %end
end:
  ret ptr %larger
}

; For the Python half: where the state and the handler lie.
define ptr @lampion_state() nounwind {
  ret ptr @state
}

define ptr @lampion_handler() nounwind {
  ret ptr @handler
}
""")


def text(target: Target) -> str:
    """The memory pool as LLVM text."""
    places = {name: f"getelementptr (i8, ptr @state, i64 {offset})"
              for name, offset in _FIELDS.items()}
    name = "lampion"
    return _TEXT.substitute(
        places, **memory.layout()._asdict(), classes=memory.CLASSES,
        state_size=8 * len(memory.STATE), padding="\\00" * (127 - len(name)))


def install() -> bool:
    """Lets `runtime.memory.empty` hand out pooled memory; False where this NumPy prevents it."""
    return memory.adopt(_image)


def _image() -> Image:
    target = plainest()
    return load(cached_object("allocator", text(target), target))
