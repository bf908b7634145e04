//! System calls, and a thread, without libc: libc's wrappers use the calling thread's `errno`, and the agent's thread has
//! no place for one of its own.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;

use linux_raw_sys::general as nr;

/// A system call: the result, or the errno.
///
/// # Safety
/// As for the call itself.
pub unsafe fn call(number: u32, args: [usize; 6]) -> Result<usize, u32> {
    let result: isize;
    // SAFETY: the x86-64 convention of Linux: arguments in these registers, rcx and r11 are lost; what the call does with
    // memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    usize::try_from(result).map_err(|_| result.unsigned_abs() as u32)
}

/// A call that takes no pointers of ours.
pub fn plain(number: u32, args: [usize; 3]) -> Result<usize, u32> {
    // SAFETY: used only for calls that read and write no memory through their arguments, but for prctl and chdir, which are given
    // strings, and for those of calls.rs, which do what their own callers asked for.
    unsafe { call(number, [args[0], args[1], args[2], 0, 0, 0]) }
}

/// An ioctl on a structure.
pub fn ioctl<T>(fd: i32, request: u32, arg: &mut T) -> Result<usize, u32> {
    // SAFETY: the kernel reads and writes the structure that the request is made for; callers pair them.
    unsafe {
        call(nr::__NR_ioctl, [fd as usize, request as usize, core::ptr::from_mut(arg) as usize, 0, 0, 0])
    }
}

/// The number of an ioctl that reads and writes a `T`: `_IOWR` of the kernel's headers.
pub const fn iowr<T>(kind: u32, number: u32) -> u32 {
    3 << 30 | (size_of::<T>() as u32) << 16 | kind << 8 | number
}

/// Ends the whole process, now.
pub fn kill_own_process() -> ! {
    /// What a shell makes of a process that was killed.
    const KILLED: usize = 128 + linux_raw_sys::general::SIGKILL as usize;
    loop {
        let pid = plain(nr::__NR_getpid, [0; 3]).unwrap_or(0);
        let _ = plain(nr::__NR_kill, [pid, linux_raw_sys::general::SIGKILL as usize, 0]);
        // The first process of a pid namespace does not hear its own signals, and who restricts itself may not send any.
        let _ = plain(nr::__NR_exit_group, [KILLED, 0, 0]);
    }
}

/// Ends this thread.
pub fn end_thread(status: u32) -> ! {
    loop {
        let _ = plain(nr::__NR_exit, [status as usize, 0, 0]);
    }
}

/// Private anonymous memory.
pub fn map(bytes: usize) -> Result<usize, u32> {
    map_with(0, bytes, 0)
}

/// The same at an address, if nothing is there.
pub fn map_at(address: usize, bytes: usize) -> Result<usize, u32> {
    map_with(address, bytes, nr::MAP_FIXED_NOREPLACE)
}

/// What is at an address goes, and the place is kept.
pub fn map_over(address: usize, bytes: usize) -> Result<usize, u32> {
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE | nr::MAP_FIXED;
    // SAFETY: what is mapped there goes, as the caller of shmat wants it.
    unsafe { call(nr::__NR_mmap, [address, bytes, nr::PROT_NONE as usize, flags as usize, usize::MAX, 0]) }
}

fn map_with(address: usize, bytes: usize, flags: u32) -> Result<usize, u32> {
    let prot = nr::PROT_READ | nr::PROT_WRITE;
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE | flags;
    // SAFETY: new memory, where nothing is.
    unsafe { call(nr::__NR_mmap, [address, bytes, prot as usize, flags as usize, usize::MAX, 0]) }
}

/// Advice about memory of the agent's own, or advice that changes no content.
pub fn madvise(start: usize, bytes: usize, advice: u32) -> Result<usize, u32> {
    plain(nr::__NR_madvise, [start, bytes, advice as usize])
}

/// Sleeps while the word has the value, and may wake earlier.
pub fn wait_while(word: &AtomicU32, value: u32) {
    // SAFETY: the kernel reads the word. Not marked as private to the process: the kernel's own word for the end of a thread is not.
    let _ = unsafe {
        call(nr::__NR_futex, [word.as_ptr() as usize, nr::FUTEX_WAIT as usize, value as usize, 0, 0, 0])
    };
}

/// Wakes who sleeps so.
pub fn wake(word: &AtomicU32) {
    // SAFETY: the address is looked at as a number only.
    let _ = unsafe { call(nr::__NR_futex, [word.as_ptr() as usize, nr::FUTEX_WAKE as usize, 1, 0, 0, 0]) };
}

/// Starts `run(arg)` as a thread of this process whose stack ends at `stack_end`, with every signal blocked and a copy of
/// the table of open files. When it ends, whatever the reason, the word gets 0 and who waits for that is woken.
///
/// # Safety
/// The stack is the thread's alone, 16-byte aligned, mapped for as long as the process lives, and large enough for `run`,
/// which neither returns to libc nor uses thread-local storage.
pub unsafe fn start_thread(
    stack_end: usize,
    run: extern "C" fn(usize),
    arg: usize,
    word: &'static AtomicU32,
) -> Result<(), u32> {
    // Not CLONE_FS: who shares that may not enter another mount namespace.
    let flags =
        nr::CLONE_VM | nr::CLONE_SIGHAND | nr::CLONE_THREAD | nr::CLONE_SYSVSEM | nr::CLONE_CHILD_CLEARTID;
    let all = [u64::MAX];
    let mut before = [0u64];
    let mask = |how: u32, set: &[u64; 1], old: *mut u64| {
        let args = [how as usize, set.as_ptr() as usize, old as usize, 8, 0, 0];
        // SAFETY: both sets are 8 bytes as told.
        unsafe { call(nr::__NR_rt_sigprocmask, args) }
    };
    mask(nr::SIG_BLOCK, &all, before.as_mut_ptr())?;
    let top = (stack_end - 16) as *mut usize;
    // SAFETY: the 16 bytes below stack_end are in the stack (caller).
    unsafe {
        top.write(run as usize);
        top.add(1).write(arg);
    }
    let result: isize;
    // SAFETY: the child runs on its own stack from the instruction behind the call on, takes its function and argument
    // from there and never returns; the parent sees an ordinary call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "pop rax",
            "pop rdi",
            "call rax",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "ud2",
            "2:",
            exit = const nr::__NR_exit,
            inlateout("rax") nr::__NR_clone as isize => result,
            in("rdi") flags as usize, in("rsi") top as usize, in("rdx") 0, in("r10") word.as_ptr(), in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    let _ = mask(nr::SIG_SETMASK, &before, core::ptr::null_mut());
    if result < 0 { Err(result.unsigned_abs() as u32) } else { Ok(()) }
}

/// Room for one descriptor in a control message.
#[repr(C)]
struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    fd: i32,
    pad: i32,
}

#[repr(C)]
struct Vector {
    base: usize,
    len: usize,
}

#[repr(C)]
struct Message {
    name: usize,
    name_len: usize,
    vectors: usize,
    vectors_len: usize,
    control: usize,
    control_len: usize,
    flags: i32,
}

const SCM_RIGHTS: i32 = 1;
const RIGHTS_LEN: usize = 20;

/// Sends a packet, with a descriptor if there is one.
pub fn send(socket: i32, bytes: &[u8], fd: Option<i32>) -> Result<(), u32> {
    let level = linux_raw_sys::net::SOL_SOCKET as i32;
    let mut rights = Rights { len: RIGHTS_LEN, level, kind: SCM_RIGHTS, fd: fd.unwrap_or(-1), pad: 0 };
    let mut vector = Vector { base: bytes.as_ptr() as usize, len: bytes.len() };
    let message = Message {
        name: 0,
        name_len: 0,
        vectors: core::ptr::from_mut(&mut vector) as usize,
        vectors_len: 1,
        control: if fd.is_some() { core::ptr::from_mut(&mut rights) as usize } else { 0 },
        control_len: if fd.is_some() { size_of::<Rights>() } else { 0 },
        flags: 0,
    };
    let args =
        [socket as usize, core::ptr::from_ref(&message) as usize, linux_raw_sys::net::MSG_NOSIGNAL as usize];
    // SAFETY: the message names the buffers above, which live until the call returns, with their lengths.
    unsafe { call(nr::__NR_sendmsg, [args[0], args[1], args[2], 0, 0, 0]) }.map(|_| ())
}

/// Receives a packet into `packet`, and the descriptor that came with it. 0 bytes: the other side is gone.
pub fn receive<T: Copy>(socket: i32, packet: &mut MaybeUninit<T>) -> Result<(usize, Option<i32>), u32> {
    let mut rights = Rights { len: 0, level: 0, kind: 0, fd: -1, pad: 0 };
    let mut vector = Vector { base: packet.as_mut_ptr() as usize, len: size_of::<T>() };
    let message = Message {
        name: 0,
        name_len: 0,
        vectors: core::ptr::from_mut(&mut vector) as usize,
        vectors_len: 1,
        control: core::ptr::from_mut(&mut rights) as usize,
        control_len: size_of::<Rights>(),
        flags: 0,
    };
    let flags = linux_raw_sys::net::MSG_CMSG_CLOEXEC as usize;
    let args = [socket as usize, core::ptr::from_ref(&message) as usize, flags, 0, 0, 0];
    // SAFETY: as in send; the kernel writes at most the lengths told.
    let len = unsafe { call(nr::__NR_recvmsg, args) }?;
    let has_fd = rights.len >= RIGHTS_LEN && rights.kind == SCM_RIGHTS && rights.fd >= 0;
    Ok((len, has_fd.then_some(rights.fd)))
}

/// [`send`] without a descriptor, by the call that programs leave themselves when they have the kernel filter their calls.
pub fn write(socket: i32, bytes: &[u8]) -> Result<(), u32> {
    let args = [socket as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: reads the slice's bytes. SIGPIPE, which this raises where the other side is gone, is blocked like all signals.
    unsafe { call(nr::__NR_write, args) }.map(|_| ())
}

/// [`receive`] without a descriptor, for the same reason.
pub fn read<T: Copy>(socket: i32, packet: &mut MaybeUninit<T>) -> Result<usize, u32> {
    let args = [socket as usize, packet.as_mut_ptr() as usize, size_of::<T>(), 0, 0, 0];
    // SAFETY: the kernel writes into the packet, no more than its size.
    unsafe { call(nr::__NR_read, args) }
}
