//! [`IpiShootdown`]: shootdown, read side and loading of roots for a kernel on several CPUs, all but two functions of it.
//!
//! Each CPU shows which root it has loaded; each request lies with the CPU that makes it, and the CPUs it concerns find a bit in
//! their mailbox. So flushes of different mms do not wait for each other.
//!
//! ```text
//! flush: changed entries, fence, look who has the root     switch: store CHANGING, fence, load the root, store it
//!        request, a bit in each mailbox, interrupt         answer: take the bits, flush, clear the bit in `waiting`
//!        until `waiting` is 0: answer, relax
//! ```
//!
//! Either the flush sees that a CPU is changing to the root, or that CPU's walks see the changed entries: the two fences.
//!
//! *Lazy.* A CPU that has left its space keeps the root loaded. A flush of leaves does not interrupt it: it leaves a mark, and
//! who comes back to the root and finds it flushes. A CPU walks tables by itself at any time, so when tables are freed it is
//! interrupted like the others.
//!
//! *Tagged translations* (PCIDs) are not used: `load_root` flushes, so a CPU holds translations of one mm only, which is what
//! makes it enough to know each CPU's root. Lazy roots save the most frequent of the flushes that tags would, the way to a
//! kernel thread or idle and back.

use core::marker::PhantomData;

use crate::addr::{PAGE_SIZE, PageAddr, Pfn};
use crate::env::{Cpus, FlushRange, LocalCpu, ReadSide, Shootdown, SwitchMm};
use crate::primitive::{AtomicU64, Ordering, array_of, const_fn, fence, safeguard};

use super::X86Cpu;

/// In a CPU's state, beside the address of its root: that is loaded, and no user memory is touched.
const LAZY: u64 = 1 << 0;
/// With [`LAZY`]: a flush was left out.
const STALE: u64 = 1 << 1;
/// It has one root, or another already.
const CHANGING: u64 = 1 << 2;
const ROOT: u64 = !(PAGE_SIZE - 1);

/// One CPU, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Cpu {
    /// Its root and the flags above. Only this CPU changes it, but for [`STALE`].
    state: AtomicU64,
    /// Its mailbox: a bit for each CPU with a request that it has to answer.
    calls: AtomicU64,
    /// Its own request: a bit for each CPU that has not answered it.
    waiting: AtomicU64,
    /// What that asks for, as [`Request::words`].
    request: [AtomicU64; 3],
    /// The root it had when it joined. Nobody else asks.
    home: AtomicU64,
    /// How many walks it is in, one interrupted by the other. Nobody else asks.
    walks: AtomicU64,
}

/// What a CPU asks others for.
#[derive(Clone, Copy)]
enum Request {
    /// To be where no walk is.
    Answer,
    /// To load another root than this, if they have it loaded lazily.
    Leave(Pfn),
    /// To forget translations of this root.
    Flush(Pfn, FlushRange),
}

impl Request {
    const ANSWER: u64 = 0;
    const LEAVE: u64 = 1;
    const LEAVES: u64 = 2;
    const PAGES: u64 = 3;
    const EVERYTHING: u64 = 4;

    fn words(self) -> [u64; 3] {
        let (root, kind, pages) = match self {
            Self::Answer => return [Self::ANSWER, 0, 0],
            Self::Leave(root) => (root, Self::LEAVE, None),
            Self::Flush(root, range) => match range {
                FlushRange::Leaves { .. } => (root, Self::LEAVES, range.pages()),
                FlushRange::Pages { .. } => (root, Self::PAGES, range.pages()),
                FlushRange::Everything => (root, Self::EVERYTHING, None),
            },
        };
        let (first, pages) = pages.map_or((0, 0), |(first, pages)| (first.address(), pages));
        [root.address() | kind, first, pages]
    }

    fn from_words([word, first, pages]: [u64; 3]) -> Self {
        let (root, first) = (Pfn::containing(word), PageAddr::containing(first));
        match word & !ROOT {
            Self::ANSWER => Self::Answer,
            Self::LEAVE => Self::Leave(root),
            Self::LEAVES => Self::Flush(root, FlushRange::Leaves { first, pages }),
            Self::PAGES => Self::Flush(root, FlushRange::Pages { first, pages }),
            _ => Self::Flush(root, FlushRange::Everything),
        }
    }
}

impl Cpu {
    const_fn! {
        const fn new() -> Self {
            Self {
                state: AtomicU64::new(0),
                calls: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
                request: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
                home: AtomicU64::new(0),
                walks: AtomicU64::new(0),
            }
        }
    }

    /// Whether the request concerns this CPU, of which another one asks.
    fn is_concerned(&self, request: Request) -> bool {
        // Acquire: pairs with the releases of a CPU that has left the root, whose accesses through it are over.
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let changing = safeguard!(ChangingUsesAll => state & CHANGING != 0);
            let (root, leaves) = match request {
                Request::Answer => return true,
                Request::Leave(root) => (root, false),
                Request::Flush(root, range) => (root, matches!(range, FlushRange::Leaves { .. })),
            };
            if !changing && state & ROOT != root.address() {
                return false;
            }
            if !leaves || state & LAZY == 0 {
                return true;
            }
            // The changed entries go with the mark to who finds it (release), and its accesses are over (acquire). Marked
            // before or not, this is an exchange: after it the CPU comes back, or this finds that it has.
            let told = if safeguard!(LazyIsTold => true) { state | STALE } else { state };
            match self.state.compare_exchange(state, told, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => state = now,
            }
        }
    }
}

/// Shootdown, read side and loading of roots for up to 64 CPUs, over what the kernel knows of them ([`Cpus`]).
///
/// A kernel makes one, uses it as read side and as shootdown of its [`Platform`](crate::Platform), and calls
/// - [`join`](Self::join) on each CPU before that uses the crate,
/// - [`answer`](Self::answer) in the handler of the interrupt and in whatever waits with interrupts off: in its
///   [`Env::Relax`](crate::Env::Relax) and in its own locks.
///
/// ```
/// # use pagepin::{Cpus, CurrentCpu, IpiShootdown};
/// # struct Machine;
/// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
/// # unsafe impl Cpus for Machine { fn interrupt(&self, _: usize) {} }
/// static SMP: IpiShootdown<Machine, 8> = IpiShootdown::new(Machine);
///
/// /// What a CPU does while it waits for one of the crate's locks.
/// struct Answer;
/// impl spin::RelaxStrategy for Answer {
///     fn relax() {
///         SMP.answer();
///         core::hint::spin_loop();
///     }
/// }
/// ```
///
/// A walk under this read side holds interrupts back, and `synchronize` interrupts every CPU: free where tables are walked,
/// dear where they are freed. [`EpochReadSide`](crate::EpochReadSide) is the other way round.
///
/// A flush that is not acknowledged never returns: nothing could go on without it. [`Cpus::late`] is told which CPU it is.
#[derive(Debug)]
pub struct IpiShootdown<C, const CPUS: usize, L = X86Cpu> {
    cpus: C,
    local: L,
    /// A bit for each CPU that takes part.
    joined: AtomicU64,
    each: [Cpu; CPUS],
}

impl<C, const CPUS: usize> IpiShootdown<C, CPUS> {
    const_fn! {
        /// For CPUs that translate as x86's do.
        #[must_use]
        pub const fn new(cpus: C) -> Self {
            Self::with_local(cpus, X86Cpu)
        }
    }
}

impl<C, const CPUS: usize, L> IpiShootdown<C, CPUS, L> {
    /// A bit for each in one word.
    const FIT: () = assert!(CPUS <= 64, "at most 64 CPUs");

    const_fn! {
        /// For CPUs of another kind.
        #[must_use]
        pub const fn with_local(cpus: C, local: L) -> Self {
            let () = Self::FIT;
            Self { cpus, local, joined: AtomicU64::new(0), each: array_of!(CPUS, Cpu::new()) }
        }
    }

    /// What the kernel told of its CPUs.
    pub const fn cpus(&self) -> &C {
        &self.cpus
    }
}

impl<C: Cpus, const CPUS: usize, L: LocalCpu> IpiShootdown<C, CPUS, L> {
    fn this(&self) -> (usize, &Cpu) {
        let index = self.cpus.current_cpu();
        (index, &self.each[index])
    }

    /// Those with a bit in `bits`.
    fn cpus_of(&self, mut bits: u64) -> impl Iterator<Item = (usize, &Cpu)> {
        core::iter::from_fn(move || {
            let index = bits.trailing_zeros() as usize;
            bits &= bits.wrapping_sub(1);
            self.each.get(index).map(|cpu| (index, cpu))
        })
    }

    /// From now on the calling CPU takes part. The root it has loaded is the one it goes back to.
    ///
    /// ```
    /// # use pagepin::{Cpus, CurrentCpu, IpiShootdown};
    /// # struct Machine;
    /// # unsafe impl CurrentCpu for Machine { fn current_cpu(&self) -> usize { 0 } }
    /// # unsafe impl Cpus for Machine { fn interrupt(&self, _: usize) {} }
    /// static SMP: IpiShootdown<Machine, 8> = IpiShootdown::new(Machine);
    ///
    /// /// Where each CPU goes on after its start.
    /// fn cpu_main() {
    ///     SMP.join();
    ///     // ... its first process
    /// }
    /// ```
    ///
    /// # Panics
    /// `CR4.PCIDE` is set: roots that are not loaded would keep translations.
    pub fn join(&self) {
        assert!(!self.local.has_tags(), "process context identifiers are on");
        let _off = self.local.interrupts_off();
        let (index, cpu) = self.this();
        let home = self.local.loaded_root().address();
        cpu.home.store(home, Ordering::Relaxed);
        cpu.state.store(home, Ordering::Relaxed);
        self.joined.fetch_or(1 << index, Ordering::Relaxed);
        // Pairs with the fence in `ask`: who does not see this CPU has changed its entries before they are forgotten here.
        fence(Ordering::SeqCst);
        self.local.flush(FlushRange::Everything);
    }

    /// Answers the requests to this CPU, if there are any. For the handler of the interrupt, and for all that waits.
    #[inline]
    pub fn answer(&self) {
        let _off = self.local.interrupts_off();
        let (index, cpu) = self.this();
        self.answer_as(index, cpu);
    }

    /// Interrupts are off, and this is the CPU.
    fn answer_as(&self, index: usize, cpu: &Cpu) {
        // Who walks may wait as well: for the lock of the frame source, to undo a pin. The walk is not over by that.
        if cpu.calls.load(Ordering::Relaxed) == 0 || cpu.walks.load(Ordering::Relaxed) != 0 {
            return;
        }
        // Acquire: pairs with the release in `ask`, for the requests.
        let calls = if safeguard!(CallsAreTaken => true) {
            cpu.calls.swap(0, safeguard!(AnswerOrdering: Ordering::Acquire))
        } else {
            let calls = cpu.calls.load(Ordering::Acquire);
            cpu.calls.store(0, Ordering::Relaxed);
            calls
        };
        for (_, caller) in self.cpus_of(calls) {
            let words = [0, 1, 2].map(|word: usize| caller.request[word].load(Ordering::Relaxed));
            self.serve(cpu, Request::from_words(words));
            // Release: what was flushed is no longer used. Pairs with the acquire in `ask`.
            caller.waiting.fetch_and(!(1 << index), safeguard!(AnswerOrdering: Ordering::Release));
        }
    }

    /// Does on the calling CPU what was asked for.
    fn serve(&self, cpu: &Cpu, request: Request) {
        let state = cpu.state.load(Ordering::Relaxed);
        match request {
            Request::Flush(root, range) if state & ROOT == root.address() => self.local.flush(range),
            Request::Leave(root) if state & (ROOT | LAZY) == root.address() | LAZY => {
                let home = Pfn::containing(cpu.home.load(Ordering::Relaxed));
                // SAFETY: the root that was loaded when this CPU joined maps the kernel and lives for ever, says `Cpus`.
                unsafe { self.load(cpu, home) };
            }
            _ => {}
        }
    }

    /// # Safety
    /// As [`LocalCpu::load_root`], with interrupts off.
    unsafe fn load(&self, cpu: &Cpu, root: Pfn) {
        cpu.state.store(CHANGING, Ordering::Relaxed);
        // Pairs with the fence in `ask`: it finds this CPU changing, or this CPU's walks find what was changed before it.
        safeguard!(SwitchFence; fence(Ordering::SeqCst));
        // SAFETY: forwarded from the caller.
        unsafe { self.local.load_root(root) };
        // Release: what was done through the last root is over. Pairs with the acquire in `is_concerned`.
        cpu.state.store(root.address(), Ordering::Release);
    }

    /// Returns when every CPU that the request concerns has done it, this one too.
    fn ask(&self, request: Request) {
        // One request of this CPU at a time, from here to the end: nothing else runs here.
        let _off = self.local.interrupts_off();
        let (index, this) = self.this();
        self.serve(this, request);
        // Between the changed entries and the states that are read below. Pairs with the fence in `load`.
        safeguard!(ShootdownFence; fence(Ordering::SeqCst));
        let others = self.joined.load(Ordering::Relaxed) & !(1 << index);
        if others != 0 {
            self.ask_others(index, this, others, request);
        }
    }

    /// Outlined: the more usual flush concerns nobody else.
    #[inline(never)]
    fn ask_others(&self, index: usize, this: &Cpu, others: u64, request: Request) {
        let concerned = self.cpus_of(others).filter(|(_, cpu)| cpu.is_concerned(request));
        let concerned = concerned.fold(0, |bits, (cpu, _)| bits | 1 << cpu);
        if concerned == 0 {
            return;
        }
        for (place, word) in this.request.iter().zip(request.words()) {
            place.store(word, Ordering::Relaxed);
        }
        this.waiting.store(concerned, Ordering::Relaxed);
        for (other, cpu) in self.cpus_of(concerned) {
            // Release: the request. Who has called before us interrupts it as well, and it answers both.
            if cpu.calls.fetch_or(1 << index, safeguard!(AnswerOrdering: Ordering::Release)) == 0 {
                self.cpus.interrupt(other);
            }
        }
        self.wait_for_answers(index, this);
    }

    fn wait_for_answers(&self, index: usize, this: &Cpu) {
        let mut turns: u32 = 0;
        loop {
            // Acquire: pairs with the release of who answers.
            let missing = this.waiting.load(safeguard!(AnswerOrdering: Ordering::Acquire));
            if safeguard!(WaitForAnswers => missing != 0) {
                safeguard!(AnswerWhileWaiting; self.answer_as(index, this));
                turns = turns.wrapping_add(1);
                if turns % C::PATIENCE == 0 {
                    self.cpus_of(missing).for_each(|(cpu, _)| self.cpus.late(cpu));
                }
                self.cpus.relax();
            } else {
                return;
            }
        }
    }
}

// SAFETY: when `ask` returns, each CPU that had the root loaded, or was changing its root, has flushed. Of the others, one that
// loads it later walks the tables as they were at the call (the two fences), and one that comes back to it finds the mark and
// flushes; it had no upper entries in use, since only leaves are flushed without it.
unsafe impl<C: Cpus, const CPUS: usize, L: LocalCpu> Shootdown for IpiShootdown<C, CPUS, L> {
    fn flush(&self, root: Pfn, range: FlushRange) {
        self.ask(Request::Flush(root, range));
    }

    /// # Panics
    /// A CPU runs in the mm: somebody has loaded its root by hand.
    fn leave_mm(&self, root: Pfn) {
        self.ask(Request::Leave(root));
        // Of all roots there are, none is at 0, where a CPU begins that has not joined.
        let runs_in_it = |cpu: &Cpu| cpu.state.load(Ordering::Acquire) & ROOT == root.address();
        if let Some(cpu) = self.each.iter().position(runs_in_it) {
            panic!("CPU {cpu} runs in an address space that is dropped");
        }
    }
}

// SAFETY: a root that is current was loaded by this CPU and not left, so flushes have reached it. What `leave_mm` finds lazy
// is made to load another root, and it panics if that is not enough.
unsafe impl<C: Cpus, const CPUS: usize, L: LocalCpu> SwitchMm for IpiShootdown<C, CPUS, L> {
    unsafe fn switch_mm(&self, root: Pfn) {
        let _off = self.local.interrupts_off();
        let (_, cpu) = self.this();
        let state = cpu.state.load(Ordering::Relaxed);
        if state & ROOT != root.address() {
            // SAFETY: forwarded from the caller.
            unsafe { self.load(cpu, root) };
        } else if state & LAZY != 0 {
            // Acquire: pairs with the exchange that left the mark, for the changed entries. One that comes later finds this.
            let left = cpu.state.swap(root.address(), Ordering::AcqRel);
            if left & STALE != 0 {
                self.local.flush(FlushRange::Everything);
            }
        }
    }

    fn enter_lazy_tlb(&self) {
        let _off = self.local.interrupts_off();
        let (_, cpu) = self.this();
        let state = cpu.state.load(Ordering::Relaxed);
        if state & LAZY == 0 && state & ROOT != cpu.home.load(Ordering::Relaxed) {
            // Release: accesses through the root are over. Pairs with the acquires in `is_concerned`.
            cpu.state.store(state | LAZY, Ordering::Release);
        }
    }

    fn is_current(&self, root: Pfn) -> bool {
        let _off = self.local.interrupts_off();
        self.this().1.state.load(Ordering::Relaxed) == root.address()
    }
}

/// Inside a walk under [`IpiShootdown`].
#[derive(Debug)]
pub struct WalkGuard<'a, I> {
    walks: &'a AtomicU64,
    _off: I,
    not_send: PhantomData<*const ()>,
}

impl<I> Drop for WalkGuard<'_, I> {
    fn drop(&mut self) {
        self.walks.store(self.walks.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

// SAFETY: a walk is over when its CPU answers: it takes no interrupt, and `answer` does nothing until then. Every CPU that
// has joined is asked, and no other walks.
unsafe impl<C: Cpus, const CPUS: usize, L: LocalCpu> ReadSide for IpiShootdown<C, CPUS, L> {
    type Guard<'a>
        = WalkGuard<'a, L::InterruptsOff>
    where
        Self: 'a;

    #[inline]
    fn enter(&self) -> Self::Guard<'_> {
        let off = self.local.interrupts_off();
        let walks = &self.this().1.walks;
        walks.store(walks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        WalkGuard { walks, _off: off, not_send: PhantomData }
    }

    fn synchronize(&self) {
        self.ask(Request::Answer);
    }
}
