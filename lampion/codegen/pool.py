"""The native half of the thread pool, as LLVM text: how work is published, shared out and awaited.

One job at a time. A caller that finds the pool taken runs its job alone, and so does a task that
launches another job. The protocol, with every step one atomic access:

* The caller writes the job and makes `epoch` odd: the job is open. It takes part as worker 0.
* A worker that sees a new odd epoch adds one to `inside`, and only then looks again whether the
  epoch is odd; if so it takes tasks until there are none. Then it subtracts one.
* The caller, out of tasks, makes the epoch even and waits until nobody is inside. A worker that
  comes later sees the even epoch and does not touch the job, so the job may lie on the caller's
  stack.
* A worker without work spins for a short time, then parks. It counts itself in `parked` before it
  looks at the epoch a last time; the caller changes the epoch before it looks at `parked`. So one
  of the two always sees the other, and nothing is woken while nobody sleeps.
* A spinning worker lets others run now and then: the caller may wait for the same processor, most
  of all where it has just woken the worker there.

Tasks are handed out by a counter, several at a time when there are many. Who runs a task does not
matter to the result: a kernel's tasks depend on sizes alone.
"""

from __future__ import annotations

from functools import partial
from string import Template

from ..runtime import threads
from ..runtime.loader import PROVIDERS, Image, load
from .compile import cached_object
from .target import TARGETS, Target, host

__all__ = ["address", "plainest", "text"]

# Fields that different processors write lie 128 bytes apart: processors fetch lines in pairs.
_FIELDS = {
    "mutex": 0, "cond": 128,
    "epoch": 256, "fn": 264, "ctx": 272, "count": 280, "chunk": 288,
    "next": 384, "inside": 512, "busy": 640,
    "parked": 768, "threads": 776, "spins": 784, "started": 792, "starter": 800,
}
_SIZE = 896
_OFTEN = 31  # turns of spinning, less one, after which others may run; a power of two less one
# What a spinning processor does meanwhile; on AArch64 a barrier, as `yield` does not wait at all.
_PAUSE = {"x86_64": "call void @llvm.x86.sse2.pause()",
          "aarch64": "call void @llvm.aarch64.isb(i32 15)"}

_TEXT = Template("""\
; The pool of worker threads. Its protocol is told in lampion/codegen/pool.py.
@pool = internal global [$size x i8] zeroinitializer, align 128

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
declare i32 @Py_AddPendingCall(ptr, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_Clear()

; fn(ctx, first, last, worker) over tasks 0 to count, shared among the threads of the pool.
define void @lampion_parallel(ptr %fn, ptr %ctx, i64 %count) nounwind {
  call void @share(ptr %fn, ptr %ctx, i64 %count, i64 0, i64 1)
  ret void
}

; The same for tasks that differ: one at a time. They are too short to wake a thread for, unless
; %wakes: where all threads sleep, the caller runs them.
define void @lampion_side_by_side(ptr %fn, ptr %ctx, i64 %count, i64 %wakes) nounwind {
  call void @share(ptr %fn, ptr %ctx, i64 %count, i64 1, i64 %wakes)
  ret void
}

; %most: tasks handed out at a time, 0 for as many as seem good.
define internal void @share(ptr %fn, ptr %ctx, i64 %count, i64 %most, i64 %wakes) nounwind {
  %threads = load atomic i64, ptr $threads monotonic, align 8
  %several = icmp sgt i64 %count, 1
  %many = icmp sgt i64 %threads, 1
  %worth = and i1 %several, %many
  br i1 %worth, label %begin, label %alone
begin:
  %started = load atomic i64, ptr $started acquire, align 8
  %ready = icmp eq i64 %started, 2
  br i1 %ready, label %look, label %start
look:
  %asleep = load atomic i64, ptr $parked monotonic, align 8
  %others = sub i64 %threads, 1
  %awake = icmp slt i64 %asleep, %others
  %rouses = icmp ne i64 %wakes, 0
  %helped = or i1 %awake, %rouses
  br i1 %helped, label %claim, label %alone
start:
  call void @start()
  br label %alone
claim:
  %claimed = cmpxchg ptr $busy, i64 0, i64 1 acquire monotonic
  %free = extractvalue { i64, i1 } %claimed, 1
  br i1 %free, label %publish, label %alone
publish:
  store ptr %fn, ptr $fn, align 8
  store ptr %ctx, ptr $ctx, align 8
  store i64 %count, ptr $count, align 8
  %parts = shl i64 %threads, 3
  %good = udiv i64 %count, %parts
  %fixed = icmp ne i64 %most, 0
  %some = select i1 %fixed, i64 %most, i64 %good
  %chunk = call i64 @llvm.umax.i64(i64 %some, i64 1)
  store i64 %chunk, ptr $chunk, align 8
  store atomic i64 0, ptr $next monotonic, align 8
  %opened = atomicrmw add ptr $epoch, i64 1 seq_cst
  %parked = load atomic i64, ptr $parked seq_cst, align 8
  %sleeping = icmp sgt i64 %parked, 0
  %wanted = and i1 %sleeping, %rouses
  br i1 %wanted, label %wake, label %work
wake:
  call void @wake()
  br label %work
work:
  call void @tasks(ptr %fn, ptr %ctx, i64 %count, i64 %chunk, i64 0)
  %closed = atomicrmw add ptr $epoch, i64 1 seq_cst
  call void @await()
  store atomic i64 0, ptr $busy release, align 8
  ret void
alone:
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %serial, label %end
serial:
  call void %fn(ptr %ctx, i64 0, i64 %count, i64 0)
  br label %end
end:
  ret void
}

define internal void @tasks(ptr %fn, ptr %ctx, i64 %count, i64 %chunk, i64 %worker) nounwind {
entry:
  br label %take
take:
  %first = atomicrmw add ptr $next, i64 %chunk monotonic
  %left = icmp slt i64 %first, %count
  br i1 %left, label %run, label %end
run:
  %next = add i64 %first, %chunk
  %last = call i64 @llvm.smin.i64(i64 %next, i64 %count)
  call void %fn(ptr %ctx, i64 %first, i64 %last, i64 %worker)
  br label %take
end:
  ret void
}

; Until nobody is inside: spinning at first, then letting other threads run.
define internal void @await() nounwind {
entry:
  %spins = load atomic i64, ptr $spins monotonic, align 8
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %next, %pause ], [ %next, %yield ]
  %next = add i64 %turn, 1
  %inside = load atomic i64, ptr $inside seq_cst, align 8
  %none = icmp eq i64 %inside, 0
  br i1 %none, label %end, label %again
again:
  %short = icmp slt i64 %turn, %spins
  br i1 %short, label %pause, label %yield
pause:
  $pause
  br label %look
yield:
  %ignored = call i32 @sched_yield()
  br label %look
end:
  ret void
}

define internal void @wake() nounwind noinline {
  %a = call i32 @pthread_mutex_lock(ptr $mutex)
  %b = call i32 @pthread_cond_broadcast(ptr $cond)
  %c = call i32 @pthread_mutex_unlock(ptr $mutex)
  ret void
}

; Asks Python's main thread, once, to start the workers.
define internal void @start() nounwind noinline {
  %asked = cmpxchg ptr $started, i64 0, i64 1 acq_rel monotonic
  %first = extractvalue { i64, i1 } %asked, 1
  br i1 %first, label %ask, label %end
ask:
  %starter = load ptr, ptr $starter, align 8
  %refused = call i32 @Py_AddPendingCall(ptr @call_starter, ptr %starter)
  %failed = icmp ne i32 %refused, 0
  br i1 %failed, label %later, label %end
later:
  store atomic i64 0, ptr $started release, align 8
  br label %end
end:
  ret void
}

define internal i32 @call_starter(ptr %starter) nounwind {
  %result = call ptr @PyObject_CallNoArgs(ptr %starter)
  %raised = icmp eq ptr %result, null
  br i1 %raised, label %clear, label %drop
clear:
  call void @PyErr_Clear()
  ret i32 0
drop:
  call void @Py_DecRef(ptr %result)
  ret i32 0
}

; The life of worker number %worker: until the pool has no more than that many threads.
define void @lampion_pool_work(i64 %worker) nounwind {
entry:
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %epoch, %leave ]
  %called = call i64 @news(i64 %worker, i64 %seen)
  %dismissed = icmp slt i64 %called, 0
  br i1 %dismissed, label %end, label %join
join:
  %before = atomicrmw add ptr $inside, i64 1 seq_cst
  %epoch = load atomic i64, ptr $epoch seq_cst, align 8
  %open = trunc i64 %epoch to i1
  br i1 %open, label %member, label %leave
member:
  %count = load i64, ptr $count, align 8
  %useful = icmp slt i64 %worker, %count
  br i1 %useful, label %work, label %leave
work:
  %fn = load ptr, ptr $fn, align 8
  %ctx = load ptr, ptr $ctx, align 8
  %chunk = load i64, ptr $chunk, align 8
  call void @tasks(ptr %fn, ptr %ctx, i64 %count, i64 %chunk, i64 %worker)
  br label %leave
leave:
  %after = atomicrmw sub ptr $inside, i64 1 seq_cst
  br label %idle
end:
  ret void
}

; The epoch of a job that the worker has not seen, or -1 where it shall leave.
define internal i64 @news(i64 %worker, i64 %seen) nounwind {
entry:
  %spins = load atomic i64, ptr $spins monotonic, align 8
  br label %spin
spin:
  %turn = phi i64 [ 0, %entry ], [ %next, %pause ], [ %next, %yield ]
  %next = add i64 %turn, 1
  %answer = call i64 @look(i64 %worker, i64 %seen)
  %found = icmp ne i64 %answer, 0
  br i1 %found, label %end, label %wait
wait:
  %short = icmp slt i64 %turn, %spins
  br i1 %short, label %idle, label %park
idle:
  %phase = and i64 %turn, $often
  %polite = icmp eq i64 %phase, 0
  br i1 %polite, label %yield, label %pause
pause:
  $pause
  br label %spin
yield:
  %ignored = call i32 @sched_yield()
  br label %spin
park:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  %before = atomicrmw add ptr $parked, i64 1 seq_cst
  br label %again
again:
  %late = call i64 @look(i64 %worker, i64 %seen)
  %woken = icmp ne i64 %late, 0
  br i1 %woken, label %unpark, label %sleep
sleep:
  %slept = call i32 @pthread_cond_wait(ptr $cond, ptr $mutex)
  br label %again
unpark:
  %after = atomicrmw sub ptr $parked, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  br label %end
end:
  %result = phi i64 [ %answer, %spin ], [ %late, %unpark ]
  ret i64 %result
}

; 0 where there is nothing new.
define internal i64 @look(i64 %worker, i64 %seen) nounwind alwaysinline {
  %threads = load atomic i64, ptr $threads seq_cst, align 8
  %dismissed = icmp sge i64 %worker, %threads
  %epoch = load atomic i64, ptr $epoch seq_cst, align 8
  %open = trunc i64 %epoch to i1
  %other = icmp ne i64 %epoch, %seen
  %news = and i1 %open, %other
  %found = select i1 %news, i64 %epoch, i64 0
  %answer = select i1 %dismissed, i64 -1, i64 %found
  ret i64 %answer
}

; A pool without threads, as at the start and in a forked child.
define void @lampion_pool_reset(i64 %spins, ptr %starter) nounwind {
  call void @llvm.memset.p0.i64(ptr align 128 @pool, i8 0, i64 $size, i1 false)
  %a = call i32 @pthread_mutex_init(ptr $mutex, ptr null)
  %b = call i32 @pthread_cond_init(ptr $cond, ptr null)
  store i64 1, ptr $threads, align 8
  store i64 %spins, ptr $spins, align 8
  store ptr %starter, ptr $starter, align 8
  ret void
}

; How many threads there shall be, the caller included, and whether they run (0: no, 2: yes).
define void @lampion_pool_resize(i64 %threads, i64 %started) nounwind {
  %a = call i32 @pthread_mutex_lock(ptr $mutex)
  store atomic i64 %threads, ptr $threads seq_cst, align 8
  store atomic i64 %started, ptr $started seq_cst, align 8
  %b = call i32 @pthread_cond_broadcast(ptr $cond)
  %c = call i32 @pthread_mutex_unlock(ptr $mutex)
  ret void
}

; To find out how long a turn of spinning takes.
define void @lampion_pool_spin(i64 %turns) nounwind {
entry:
  br label %loop
loop:
  %turn = phi i64 [ 0, %entry ], [ %next, %loop ]
  $pause
  %next = add i64 %turn, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %loop, label %end
end:
  ret void
}
""")


def text(target: Target) -> str:
    """The pool as LLVM text for a processor."""
    places = {name: f"getelementptr (i8, ptr @pool, i64 {offset})"
              for name, offset in _FIELDS.items()}
    pause = _PAUSE[target.triple.partition("-")[0]]
    return _TEXT.substitute(places, size=_SIZE, pause=pause, often=_OFTEN)


def plainest() -> Target:
    """The target of code that gains nothing from vectors: any processor of this family."""
    return TARGETS["neon" if host().name == "neon" else "sse"]


def _image() -> Image:
    target = plainest()
    return load(cached_object("pool", text(target), target))


def address(name: str) -> int:
    """The address of one of the pool's functions; brings the pool up at the first call."""
    return threads.pool_function(name, _image)


for _name in ("lampion_parallel", "lampion_side_by_side"):
    PROVIDERS[_name] = partial(address, _name)
