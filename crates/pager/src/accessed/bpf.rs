//! A program for the kernel's BPF machine that walks page tables, and how it is loaded and run.
//!
//! It takes a process and addresses and gives the last page-table entry of each. It reads the tables without any lock, by
//! `bpf_probe_read_kernel`, which survives any address: what it reads of a table that is being taken apart is garbage, and its
//! caller has to live with that. It is checked by the kernel before it runs, changes nothing, and is gone with its descriptor.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aya_obj::generated as nr;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn};

/// Addresses looked up by one call.
pub const LOOKUPS: usize = 256;

/// What is shared with the program, in words of 64 bits: who, the root of its tables (set by the program), where physical
/// memory is mapped, how many addresses; then the addresses, each of which becomes its entry.
const WHO: usize = 0;
const ROOT: usize = 1;
const PHYSICAL: usize = 2;
const COUNT: usize = 3;
const ADDRESSES: usize = 4;
const WORDS: usize = ADDRESSES + LOOKUPS;

/// The bits of an entry that are the address of the next table, or of the page.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// It points somewhere (`_PAGE_PRESENT`).
pub const PRESENT: u64 = 1;
/// The processor used it (`_PAGE_ACCESSED`).
pub const ACCESSED: u64 = 1 << 5;
/// It is a large page, no table (`_PAGE_PSE`).
const LARGE: u64 = 1 << 7;

/// The kernel has helpers for programs under the GPL only. What is under the MIT licence may be passed on under the GPL, and is to
/// the kernel: this says so.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// What the program must know of this kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The type number of `bpf_task_from_vpid` (6.13).
    pub task_from_vpid: u32,
    /// The type number of `bpf_task_release`.
    pub task_release: u32,
    /// Of `mm` in `struct task_struct`.
    pub mm: u32,
    /// Of `pgd` in `struct mm_struct`.
    pub pgd: u32,
    /// How many levels of tables there are: 4 or 5.
    pub levels: u32,
}

/// The loaded program and what it shares with us.
pub struct Walker {
    program: OwnedFd,
    _map: OwnedFd,
    shared: Shared,
}

/// The mapping of the map's only value.
struct Shared(*mut AtomicU64);

// SAFETY: the mapping belongs to this value alone until it is dropped, and is only accessed by atomic operations.
unsafe impl Send for Shared {}

impl Shared {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `Walker::load` mapped at least this much, page-aligned and zeroed; it is unmapped by drop only, and the kernel's
        // program writes whole words to it, as atomics may be.
        unsafe { std::slice::from_raw_parts(self.0, WORDS) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: what `Walker::load` mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.0.cast(), WORDS * 8) };
    }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_int> {
    // SAFETY: the attribute is the kernel's union in full length, and what it points to is alive in the callers below.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    // A descriptor or 0.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn attr() -> bpf_attr {
    // SAFETY: a union of plain numbers, for each of which zero is a value; the kernel wants the unused ones to be zero.
    unsafe { std::mem::zeroed() }
}

fn descriptor(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel just gave it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Walker {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel has no BPF, does not allow it (it takes CAP_BPF and CAP_PERFMON), or is unlike the one that was described.
    pub fn load(kernel: Kernel) -> io::Result<Walker> {
        let mut make = attr();
        make.__bindgen_anon_1.map_type = nr::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        make.__bindgen_anon_1.key_size = 4;
        make.__bindgen_anon_1.value_size = (WORDS * 8) as u32;
        make.__bindgen_anon_1.max_entries = 1;
        make.__bindgen_anon_1.map_flags = nr::BPF_F_MMAPABLE;
        let map = descriptor(bpf(bpf_cmd::BPF_MAP_CREATE, &mut make)?);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), WORDS * 8, rights, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = Shared(at.cast());
        let code = code(kernel, map.as_raw_fd());
        let mut load = attr();
        load.__bindgen_anon_3.prog_type = nr::bpf_prog_type::BPF_PROG_TYPE_SYSCALL as u32;
        load.__bindgen_anon_3.insn_cnt = code.len() as u32;
        load.__bindgen_anon_3.insns = code.as_ptr() as u64;
        load.__bindgen_anon_3.license = LICENSE.as_ptr() as u64;
        load.__bindgen_anon_3.prog_flags = nr::BPF_F_SLEEPABLE;
        let program = descriptor(bpf(bpf_cmd::BPF_PROG_LOAD, &mut load)?);
        Ok(Walker { program, _map: map, shared })
    }

    /// Where physical memory is mapped in the kernel.
    pub fn set_physical(&self, at: u64) {
        self.shared.words()[PHYSICAL].store(at, Relaxed);
    }

    /// Where the tables of a process begin, in the kernel's addresses. 0: it has none, or was never looked at.
    pub fn root(&self) -> u64 {
        self.shared.words()[ROOT].load(Relaxed)
    }

    /// Calls `each` with the entry of each address, in order; 0: none. At most [`LOOKUPS`] are looked up.
    ///
    /// # Errors
    /// The kernel does not run it.
    pub fn walk(
        &self,
        pid: u32,
        addresses: impl Iterator<Item = u64>,
        mut each: impl FnMut(usize, u64),
    ) -> io::Result<()> {
        let words = self.shared.words();
        let mut count = 0;
        for (word, address) in words[ADDRESSES..].iter().zip(addresses) {
            word.store(address, Relaxed);
            count += 1;
        }
        words[WHO].store(u64::from(pid), Relaxed);
        words[COUNT].store(count as u64, Relaxed);
        words[ROOT].store(0, Relaxed);
        let mut run = attr();
        run.test.prog_fd = self.program.as_raw_fd() as u32;
        bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut run)?;
        let is_there = self.root() != 0;
        for (at, word) in words[ADDRESSES..ADDRESSES + count].iter().enumerate() {
            each(at, if is_there { word.load(Relaxed) } else { 0 });
        }
        Ok(())
    }
}

/// The machine's registers: results and arguments, those kept over calls, and the frame.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R6: u8 = 6;
const R7: u8 = 7;
const R9: u8 = 9;
const R10: u8 = 10;

const LOAD: u32 = nr::BPF_LDX | nr::BPF_MEM | nr::BPF_DW;
const STORE: u32 = nr::BPF_STX | nr::BPF_MEM | nr::BPF_DW;
const SET: u32 = nr::BPF_ALU64 | nr::BPF_MOV;
const ADD: u32 = nr::BPF_ALU64 | nr::BPF_ADD;
const AND: u32 = nr::BPF_ALU64 | nr::BPF_AND;
const LEFT: u32 = nr::BPF_ALU64 | nr::BPF_LSH;
const RIGHT: u32 = nr::BPF_ALU64 | nr::BPF_RSH;
const REGISTER: u32 = nr::BPF_X;
const CALL: u32 = nr::BPF_JMP | nr::BPF_CALL;
const EXIT: u32 = nr::BPF_JMP | nr::BPF_EXIT;

/// Instructions, and jumps whose ends are not known yet.
#[derive(Default)]
struct Code {
    insns: Vec<bpf_insn>,
}

/// A jump without its end.
struct Jump(usize);

impl Code {
    fn put(&mut self, code: u32, to: u8, from: u8, off: usize, imm: u32) {
        self.insns.push(bpf_insn {
            code: code as u8,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(to, from),
            off: off as i16,
            imm: imm as i32,
        });
    }

    /// A number of 64 bits takes two instructions. `pseudo`: what kind of number.
    fn put_wide(&mut self, to: u8, pseudo: u32, low: u32, high: u32) {
        self.put(nr::BPF_LD | nr::BPF_IMM | nr::BPF_DW, to, pseudo as u8, 0, low);
        self.put(0, 0, 0, 0, high);
    }

    /// If `register` compares with `with` as told.
    fn jump_if(&mut self, how: u32, register: u8, with: u32) -> Jump {
        self.put(nr::BPF_JMP | how, register, 0, 0, with);
        Jump(self.insns.len() - 1)
    }

    fn jump(&mut self) -> Jump {
        self.jump_if(nr::BPF_JA, 0, 0)
    }

    /// The jump ends here.
    fn end(&mut self, jump: Jump) {
        let here = self.insns.len();
        if let Some(insn) = self.insns.get_mut(jump.0) {
            insn.off = (here - jump.0 - 1) as i16;
        }
    }
}

/// The program.
fn code(kernel: Kernel, map: libc::c_int) -> Vec<bpf_insn> {
    let word = |at: usize| at * 8;
    let mut code = Code::default();
    // r6: what is shared.
    code.put_wide(R6, nr::BPF_PSEUDO_MAP_VALUE, map as u32, 0);
    code.put(LOAD, R1, R6, word(WHO), 0);
    code.put(CALL, 0, nr::BPF_PSEUDO_KFUNC_CALL as u8, 0, kernel.task_from_vpid);
    let no_task = code.jump_if(nr::BPF_JEQ, R0, 0);
    code.put(SET | REGISTER, R7, R0, 0, 0);
    code.put(LOAD, R1, R7, kernel.mm as usize, 0);
    code.put(SET, R9, 0, 0, 0);
    let no_memory = code.jump_if(nr::BPF_JEQ, R1, 0);
    code.put(LOAD, R9, R1, kernel.pgd as usize, 0);
    code.put(STORE, R6, R9, word(ROOT), 0);
    code.end(no_memory);
    code.put(SET | REGISTER, R1, R7, 0, 0);
    code.put(CALL, 0, nr::BPF_PSEUDO_KFUNC_CALL as u8, 0, kernel.task_release);
    // From the last address to the first; r7 the place of it without the offset that all have. How many are left is in what is
    // shared and not in a register: so one look at the loop is enough for the kernel, and not one for each number.
    let again = code.insns.len();
    code.put(nr::BPF_JMP | nr::BPF_JCOND, 0, 0, 0, 0);
    let too_long = Jump(again);
    code.put(LOAD, R1, R6, word(COUNT), 0);
    let all_done = code.jump_if(nr::BPF_JEQ, R1, 0);
    code.put(ADD, R1, 0, 0, -1i32 as u32);
    let too_many = code.jump_if(nr::BPF_JGE, R1, LOOKUPS as u32);
    code.put(STORE, R6, R1, word(COUNT), 0);
    code.put(SET | REGISTER, R7, R6, 0, 0);
    code.put(LEFT, R1, 0, 0, 3);
    code.put(ADD | REGISTER, R7, R1, 0, 0);
    // r9: the table.
    code.put(LOAD, R9, R6, word(ROOT), 0);
    let (mut absent, mut found) = (Vec::new(), Vec::new());
    for level in (0..kernel.levels).rev() {
        code.put(LOAD, R3, R7, word(ADDRESSES), 0);
        code.put(RIGHT, R3, 0, 0, 12 + 9 * level);
        code.put(AND, R3, 0, 0, 511);
        code.put(LEFT, R3, 0, 0, 3);
        code.put(ADD | REGISTER, R3, R9, 0, 0);
        code.put(SET | REGISTER, R1, R10, 0, 0);
        code.put(ADD, R1, 0, 0, -8i32 as u32);
        code.put(SET, R2, 0, 0, 8);
        code.put(CALL, 0, 0, 0, nr::bpf_func_id::BPF_FUNC_probe_read_kernel as u32);
        code.put(LOAD, R1, R10, -8isize as usize, 0);
        code.put(SET | REGISTER, R2, R1, 0, 0);
        code.put(AND, R2, 0, 0, PRESENT as u32);
        absent.push(code.jump_if(nr::BPF_JEQ, R2, 0));
        if level == 0 {
            break;
        }
        code.put(SET | REGISTER, R2, R1, 0, 0);
        code.put(AND, R2, 0, 0, LARGE as u32);
        found.push(code.jump_if(nr::BPF_JNE, R2, 0));
        code.put_wide(R2, 0, FRAME as u32, (FRAME >> 32) as u32);
        code.put(AND | REGISTER, R1, R2, 0, 0);
        code.put(LOAD, R9, R6, word(PHYSICAL), 0);
        code.put(ADD | REGISTER, R9, R1, 0, 0);
    }
    found.push(code.jump());
    absent.into_iter().for_each(|jump| code.end(jump));
    code.put(SET, R1, 0, 0, 0);
    found.into_iter().for_each(|jump| code.end(jump));
    code.put(STORE, R7, R1, word(ADDRESSES), 0);
    let back = again.wrapping_sub(code.insns.len() + 1);
    code.put(nr::BPF_JMP | nr::BPF_JA, 0, 0, back, 0);
    for jump in [no_task, too_long, all_done, too_many] {
        code.end(jump);
    }
    code.put(SET, R0, 0, 0, 0);
    code.put(EXIT, 0, 0, 0, 0);
    code.insns
}
