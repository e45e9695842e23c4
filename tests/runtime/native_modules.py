"""LLVM modules that the tests of the native runtime load."""

# Everything that leads to a relocation: constants, a jump table, tables of addresses, variables,
# external functions and data.
MIXED = """
@table = private unnamed_addr constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
@functions = internal constant [2 x ptr] [ptr @scaled, ptr @chosen]
@state = internal global i64 0, align 128
@_Py_NoneStruct = external global i8
declare void @Py_IncRef(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare double @PyFloat_AsDouble(ptr)
declare float @fmodf(float, float)
declare ptr @memset(ptr, i32, i64)
define i64 @chosen(i64 %x) {
  switch i64 %x, label %d [ i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %e
                            i64 4, label %h ]
a: ret i64 7
b: ret i64 91
c:
  %old = load i64, ptr @state
  %new = add i64 %old, 1
  store i64 %new, ptr @state
  ret i64 %new
e:
  %z = call float @fmodf(float 7.5, float 2.0)
  %w = fptosi float %z to i64
  ret i64 %w
h: ret i64 13
d: ret i64 5
}
define float @scaled(i64 %i) {
  %p = getelementptr float, ptr @table, i64 %i
  %v = load float, ptr %p
  %r = fmul float %v, 3.5
  ret float %r
}
define void @fill(ptr %p, i64 %n) {
  %_ = call ptr @memset(ptr %p, i32 7, i64 %n)
  ret void
}
define ptr @entry(ptr %self, ptr %args, i64 %n) {
  %array = load ptr, ptr %args
  %second = getelementptr ptr, ptr %args, i64 1
  %whole = load ptr, ptr %second
  %third = getelementptr ptr, ptr %args, i64 2
  %real = load ptr, ptr %third
  %x = call i64 @PyLong_AsLongLong(ptr %whole)
  %y = call double @PyFloat_AsDouble(ptr %real)
  %place = getelementptr ptr, ptr @functions, i64 1
  %function = load ptr, ptr %place
  %r = call i64 %function(i64 %x)
  %f = sitofp i64 %r to double
  %sum = fadd double %f, %y
  %field = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %field
  store double %sum, ptr %data
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}
"""

# entry(array, tasks): task i spins array[i] turns, then leaves the number of its worker there.
TASKS = """
@_Py_NoneStruct = external global i8
declare void @Py_IncRef(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare void @lampion_parallel(ptr, ptr, i64)
define internal void @task(ptr %ctx, i64 %first, i64 %last, i64 %worker) {
entry:
  br label %one
one:
  %i = phi i64 [ %first, %entry ], [ %next, %done ]
  %p = getelementptr i64, ptr %ctx, i64 %i
  %turns = load i64, ptr %p
  br label %spin
spin:
  %k = phi i64 [ 0, %one ], [ %k1, %spin ]
  %k1 = add i64 %k, 1
  %_ = load volatile i64, ptr %p
  %more = icmp slt i64 %k1, %turns
  br i1 %more, label %spin, label %done
done:
  store i64 %worker, ptr %p
  %next = add i64 %i, 1
  %left = icmp slt i64 %next, %last
  br i1 %left, label %one, label %end
end:
  ret void
}
define ptr @entry(ptr %self, ptr %args, i64 %n) {
  %array = load ptr, ptr %args
  %second = getelementptr ptr, ptr %args, i64 1
  %tasks = load ptr, ptr %second
  %field = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %field
  %count = call i64 @PyLong_AsLongLong(ptr %tasks)
  %state = call ptr @PyEval_SaveThread()
  call void @lampion_parallel(ptr @task, ptr %data, i64 %count)
  call void @PyEval_RestoreThread(ptr %state)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}
; counted(array, tasks): task i adds one to array[i].
define internal void @adding(ptr %ctx, i64 %first, i64 %last, i64 %worker) {
entry:
  br label %one
one:
  %i = phi i64 [ %first, %entry ], [ %next, %one ]
  %p = getelementptr i64, ptr %ctx, i64 %i
  %old = load i64, ptr %p
  %new = add i64 %old, 1
  store i64 %new, ptr %p
  %next = add i64 %i, 1
  %left = icmp slt i64 %next, %last
  br i1 %left, label %one, label %end
end:
  ret void
}
define ptr @counted(ptr %self, ptr %args, i64 %n) {
  %array = load ptr, ptr %args
  %second = getelementptr ptr, ptr %args, i64 1
  %tasks = load ptr, ptr %second
  %field = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %field
  %count = call i64 @PyLong_AsLongLong(ptr %tasks)
  call void @lampion_parallel(ptr @adding, ptr %data, i64 %count)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}
; Every task launches a job of its own, over the eight words that follow its own.
define internal void @outer(ptr %ctx, i64 %first, i64 %last, i64 %worker) {
entry:
  br label %one
one:
  %i = phi i64 [ %first, %entry ], [ %next, %one ]
  %at = mul i64 %i, 8
  %p = getelementptr i64, ptr %ctx, i64 %at
  call void @lampion_parallel(ptr @task, ptr %p, i64 8)
  %next = add i64 %i, 1
  %left = icmp slt i64 %next, %last
  br i1 %left, label %one, label %end
end:
  ret void
}
define ptr @nested(ptr %self, ptr %args, i64 %n) {
  %array = load ptr, ptr %args
  %field = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %field
  call void @lampion_parallel(ptr @outer, ptr %data, i64 8)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}
"""
