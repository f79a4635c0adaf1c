//! Calls, errors and exceptions.

use core::arch::asm;

use pagepin_abi::{Call, Error, Program, Status, USER_END};

use crate::{calls, println};

pub fn hello(argument: u64) -> u32 {
    println!("hello from ring 3, argument {argument}, cpu {}", calls::cpu());
    42
}

pub fn null_calls() {
    for _ in 0..1000 {
        assert_eq!(calls::null(), Ok(()));
        assert_eq!(calls::raw_interrupt(Call::Null as u64), 0);
    }
}

pub fn bad_calls() {
    for number in [63, 1000, 1 << 32, u64::MAX] {
        assert_eq!(calls::decode(calls::raw(number, [0; 5])), Err(Error::NoSuchCall));
    }
    for pointer in [0, 0x7000_0000, USER_END - 4, 0xffff_8000_0000_0000, u64::MAX - 3] {
        assert_eq!(calls::write(pointer, 8), Err(Error::Fault), "{pointer:#x}");
    }
    assert_eq!(calls::write(pagepin_abi::STACK_TOP - 64, u64::MAX), Err(Error::Invalid));
    assert_eq!(calls::wait(0), Err(Error::NotFound));
    assert_eq!(calls::wait(u64::MAX), Err(Error::NotFound));
    for (addr, len) in [
        (1, 4096),
        (1 << 20, 0),
        (1 << 20, 1),
        (USER_END, 4096),
        (USER_END - 4096, 8192),
        (1 << 63, 4096),
        (4096 * 64, u64::MAX - 4095),
    ] {
        assert_eq!(calls::map(addr, len, 0), Err(Error::Invalid), "{addr:#x} {len:#x}");
        assert_eq!(calls::unmap(addr, len), Err(Error::Invalid), "{addr:#x} {len:#x}");
    }
    assert_eq!(calls::map(0, 4096, 0), Err(Error::Invalid));
    for number in 0..64 {
        // Everything that returns must return, whatever it is given.
        let returns = Call::from_number(number).is_none_or(|call| {
            !matches!(call, Call::Exit | Call::ExitThread | Call::Sleep | Call::Fork | Call::SpawnThread)
        });
        if returns {
            calls::raw(number, [u64::MAX; 5]);
        }
    }
    let spawned = calls::raw(Call::SpawnThread as u64, [u64::MAX; 5]);
    assert_eq!(calls::decode(spawned), Err(Error::Invalid));
}

pub fn page_fault() {
    // SAFETY: none; the kernel must end this process here.
    unsafe { (0x7000_0000 as *mut u8).write_volatile(1) };
}

pub fn general_protection() {
    // SAFETY: none; the instruction is privileged.
    unsafe { asm!("cli") };
}

/// What a program can put into its own registers to annoy the kernel; each in a child.
pub fn hostile_registers() {
    let attempts: [(&str, fn(), Status); 11] = [
        (
            "trap flag",
            || {
                // SAFETY: the flag makes the next instruction trap, and this process end.
                unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop") };
            },
            Status::Killed(1),
        ),
        (
            "trap flag into syscall",
            || {
                // SAFETY: as above; the call in between does nothing.
                unsafe {
                    asm!("mov eax, 0", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "syscall",
                         "nop", out("rax") _, out("rcx") _, out("r11") _);
                }
            },
            Status::Killed(1),
        ),
        (
            "trap flag into an interrupt",
            || {
                // SAFETY: as above.
                unsafe {
                    asm!("mov eax, 0", "pushfq", "or qword ptr [rsp], 0x100", "popfq", "int 0x80",
                         "nop", out("rax") _);
                }
            },
            Status::Killed(1),
        ),
        (
            "kernel's own vector",
            || {
                // SAFETY: refused with a general protection fault.
                unsafe { asm!("int 0xf0") };
            },
            Status::Killed(13),
        ),
        (
            "undefined instruction",
            || {
                // SAFETY: traps.
                unsafe { asm!("ud2") };
            },
            Status::Killed(6),
        ),
        (
            "nested task flag",
            || {
                // SAFETY: the flag has no effect in ring 3, and the call keeps the rest.
                unsafe { asm!("pushfq", "or qword ptr [rsp], 0x4000", "popfq") };
                assert_eq!(calls::null(), Ok(()));
            },
            Status::Exited(0),
        ),
        (
            "direction flag",
            || {
                // SAFETY: cleared again before any Rust code runs.
                unsafe {
                    asm!("std", "mov eax, 0", "int 0x80", "mov eax, 0", "syscall", "cld",
                     out("rax") _, out("rcx") _, out("r11") _);
                }
            },
            Status::Exited(0),
        ),
        (
            "null segments",
            || {
                // SAFETY: 64-bit code uses neither segment.
                unsafe {
                    asm!("mov gs, {0:e}", "mov fs, {0:e}", "mov ds, {0:e}", "mov es, {0:e}",
                     in(reg) 0u32);
                }
                assert_eq!(calls::null(), Ok(()));
            },
            Status::Exited(0),
        ),
        (
            "stack pointer into the kernel",
            || {
                // SAFETY: the call does not use the stack; restored after it.
                unsafe {
                    asm!("mov r12, rsp", "mov rsp, {0}", "mov eax, 0", "syscall", "mov eax, 0",
                     "int 0x80", "mov rsp, r12",
                     in(reg) 0xffff_8000_0000_1000u64,
                     out("r12") _, out("rax") _, out("rcx") _, out("r11") _);
                }
            },
            Status::Exited(0),
        ),
        (
            "jump to a non-canonical address",
            || {
                // SAFETY: faults before it gets anywhere.
                unsafe { asm!("jmp {0}", in(reg) 0x8000_0000_0000_0000u64) };
            },
            Status::Killed(13),
        ),
        (
            "floating point",
            || {
                // SAFETY: traps, as nobody saves these registers.
                unsafe { asm!("fninit") };
            },
            Status::Killed(7),
        ),
    ];
    for (name, attempt, wanted) in attempts {
        let child = calls::fork().unwrap();
        if child == 0 {
            attempt();
            calls::exit(0);
        }
        assert_eq!(calls::wait(child), Ok(wanted), "{name}");
    }
    assert_eq!(calls::spawn(Program::Hello, 7).and_then(calls::wait), Ok(Status::Exited(42)));
}
