//! Scenes of drivers that do not give back what is pinned for them. They are played in the kernel, by drivers of its own, on the
//! frames of all processes.

use alloc::{format, string::String};

use pagepin::frame::Dirty;
use pagepin::pin::{
    Answer, Held, Lent, Owner, PhysRun, PinFlags, PinnedRange, Revocable, RevocableSet, Revoke, Write,
    pin_user_pages_remote, unpin_user_runs,
};
use pagepin::space::{SpaceOptions, UserSpace};
use pagepin::{Env, Levels, Pfn, Rights, Through, Unlimited, UserRange};
use spin::mutex::SpinMutex;

use super::Outcome;
use crate::{
    edu::{self, Direction},
    memory::{self, PAGE},
    mm::{self, Booked, LEDGER, QUARANTINE},
    poll::Poll,
    println, time,
};

const BASE: u64 = 0x5000_0000;
/// Numbers of a process and of a driver, as the ledger knows them.
const PROCESS: u64 = 42;
const CAPTURE: u64 = 7;
/// The number of the device.
const EDU: u64 = 1;
/// What the device writes.
const TEXT: &str = "the edu device's";
const MESSAGE: [u8; 16] = *b"the edu device's";
/// Bytes of the next owner.
const OWNED: u8 = 0x11;
/// Pages that the next owner takes: the frame that was given back last is among the first.
const NEXT_PAGES: u64 = 64;

macro_rules! say {
    ($verbose:expr, $($words:tt)*) => { if $verbose { println!("    {}", format_args!($($words)*)) } };
}

fn fail<E: core::fmt::Debug>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error:?}")
}

fn space<K: Env>(kernel: &'static K, pages: u64) -> Result<UserSpace<&'static K>, String> {
    let space = UserSpace::new(kernel, SpaceOptions::without_kernel_half(Levels::Four)).map_err(fail("a space"))?;
    space.map(BASE, pages * PAGE, Rights::READ | Rights::WRITE).map_err(fail("map"))?;
    Ok(space)
}

type Pinned<K> = PinnedRange<Owner<&'static K, Unlimited>, Write, [PhysRun; 2]>;

/// For the driver `tag`, which may have it for as long as it likes.
fn pin<K: Env>(space: &UserSpace<&'static K>, first: u64, pages: u64, tag: u64) -> Result<Pinned<K>, String> {
    let range = space.range(BASE + first * PAGE, pages * PAGE).map_err(fail("range"))?;
    let buffer = [PhysRun::default(); 2];
    let pins = pin_user_pages_remote(space, Write, range, PinFlags::LONGTERM, buffer).map_err(fail("pin"))?;
    pins.tagged(tag).complete().map(PinnedRange::into_owned).map_err(fail("pin"))
}

/// Everything is back, and nothing on record.
fn nothing_is_left() -> Outcome {
    let counters = mm::booked().statistics();
    if counters.pins_acquired != counters.pins_released || counters.bugs_caught != 0 {
        return Err(format!("{counters:?}"));
    }
    if LEDGER.records().next().is_some() || QUARANTINE.runs().next().is_some() {
        return Err("there is something on record".into());
    }
    mm::leftovers()
}

/// A process ends while a driver has a pin of it that it has forgotten.
pub fn leaked_pin(twin: bool, verbose: bool) -> Outcome {
    if twin { leak_unrecorded(verbose) } else { leak_recorded(verbose) }
}

/// With counts alone it can be seen that something is pinned, and no more.
fn leak_unrecorded(verbose: bool) -> Outcome {
    let space = space(mm::kernel(), 8)?;
    core::mem::forget(pin(&space, 2, 2, CAPTURE)?);
    let left = space.exit();
    say!(
        verbose,
        "Process {PROCESS} has ended. {} frames are still pinned, and the counts do not say by whom.",
        left.pinned_pages
    );
    if left.pinned_pages != 2 || mm::leftovers().is_ok() {
        return Err(format!("{left:?}"));
    }
    for run in left.still_pinned.runs() {
        // SAFETY: the scene knows who has forgotten them: it has itself.
        unsafe { unpin_user_runs(mm::kernel(), &[run.run], Dirty::Yes) };
    }
    Ok(())
}

fn leak_recorded(verbose: bool) -> Outcome {
    let space = space(mm::booked(), 8)?;
    space.set_tag(PROCESS);
    let through = Through::space(space.root());
    core::mem::forget(pin(&space, 2, 2, CAPTURE)?);
    time::spin_microseconds(12_000);
    let left = space.exit();
    say!(verbose, "Process {PROCESS} has ended. {} frames are still pinned. The leak report:", left.pinned_pages);
    let mut found = 0;
    for entry in LEDGER.left_behind() {
        let (pages, age) = (entry.run.pages(), (time::now() - entry.time) / 1000);
        let whose = if entry.through == through { PROCESS } else { 0 };
        say!(
            verbose,
            "  driver {} has {pages} pages of process {whose}, {} bytes from {:#x}, frames from {:#x}, since {age} ms",
            entry.tag,
            entry.length,
            entry.start,
            entry.run.first().number()
        );
        let right = entry.tag == CAPTURE && entry.through == through && entry.start == BASE + 2 * PAGE;
        if !right || entry.length != 2 * PAGE || age < 12 || !entry.left_behind {
            return Err(format!("{entry:?}"));
        }
        found += pages;
        // SAFETY: the driver was asked, and has forgotten them.
        unsafe { unpin_user_runs(mm::booked(), &[entry.run], Dirty::Yes) };
    }
    LEDGER.strike_orphans();
    if found != 2 || left.pinned_pages != 2 {
        return Err(format!("{found} pages on record, {left:?}"));
    }
    nothing_is_left()
}

type Loan = Held<'static, Lent<Owner<&'static Booked, Unlimited>, Write, [PhysRun; 2]>>;

/// How a driver answers when it is asked for its pin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Its transfer is over.
    Idle,
    /// Its transfer will be over.
    Busy,
    /// It does not know how to stop its device.
    Stuck,
}

struct Driver {
    manner: Manner,
    loan: SpinMutex<Option<Loan>, Poll>,
}

impl Driver {
    const fn new(manner: Manner) -> Self {
        Self { manner, loan: SpinMutex::new(None) }
    }

    /// Gives the pin back.
    ///
    /// # Safety
    /// The device does not use it, or nobody minds what it does.
    unsafe fn give_back(&self) {
        let loan = self.loan.lock().take();
        // SAFETY: forwarded from the caller.
        loan.into_iter().for_each(|loan| drop(unsafe { loan.complete() }));
    }

    fn frame(&self) -> Option<Pfn> {
        self.loan.lock().as_ref().and_then(|loan| loan.runs().first()).map(PhysRun::first)
    }
}

/// Until a transfer is certainly over, in microseconds.
const DEADLINE: u64 = 500_000;

impl Revoke for Driver {
    fn revoke(&self, _: UserRange) -> Answer {
        match self.manner {
            Manner::Idle => {
                // SAFETY: its device has nothing to do.
                unsafe { self.give_back() };
                Answer::Granted
            }
            Manner::Busy => Answer::Later(time::now() + DEADLINE),
            Manner::Stuck => Answer::Refused,
        }
    }
}

static SET: RevocableSet<'static> = RevocableSet::new();
static DRIVERS: [Driver; 3] = [Driver::new(Manner::Idle), Driver::new(Manner::Busy), Driver::new(Manner::Stuck)];
static ENTRIES: [Revocable<'static>; 3] =
    [Revocable::new(&SET, &DRIVERS[0]), Revocable::new(&SET, &DRIVERS[1]), Revocable::new(&SET, &DRIVERS[2])];

/// A process's memory is wanted back from three drivers, while a device is at work.
pub fn revoked_pins(twin: bool, verbose: bool) -> Outcome {
    let space = space(mm::booked(), 3)?;
    let all = space.range(BASE, 3 * PAGE).map_err(fail("range"))?;
    for (page, (driver, entry)) in (0..).zip(DRIVERS.iter().zip(&ENTRIES)) {
        let pinned = pin(&space, page, 1, page)?;
        pinned.copy_from(0, &MESSAGE).map_err(fail("message"))?;
        let held = pinned.register(entry, &space).map_err(|(_, error)| format!("{error}"))?;
        *driver.loan.lock() = Some(held.lend_to(EDU));
    }
    let [sent, receives, stuck] = [0, 1, 2].map(|driver: usize| DRIVERS[driver].frame().expect("lent just now"));
    transfer(sent, Direction::ToDevice)?;
    edu::wait_idle();
    clear(receives);
    transfer(receives, Direction::FromDevice)?;

    let asked = SET.ask(space.root(), all, |range, outcome| say!(verbose, "{:#x}: {outcome:?}", range.start()));
    if (asked.granted, asked.later, asked.refused) != (1, 1, 1) || !edu::is_busy().unwrap_or(false) {
        return Err(format!("{asked:?}"));
    }
    edu::wait_idle();
    if time::now() > asked.deadline || bytes(receives) != MESSAGE {
        return Err("the driver that asked for time did not need it".into());
    }
    // SAFETY: its device is idle.
    unsafe { DRIVERS[1].give_back() };
    let asked = SET.ask(space.root(), all, |_, _| {});
    if (asked.granted, asked.later, asked.refused) != (0, 0, 1) {
        return Err(format!("{asked:?}"));
    }
    say!(verbose, "The second has kept its word. The third still refuses, and its device starts to write.");

    clear(stuck);
    transfer(stuck, Direction::FromDevice)?;
    let left = space.exit();
    if twin {
        // SAFETY: none: the device is at work. That is what the twin leaves out.
        unsafe { DRIVERS[2].give_back() };
    } else {
        // Its loan is dropped, which sends it to quarantine.
        drop(DRIVERS[2].loan.lock().take());
    }
    say!(verbose, "The process is ended. Runs in quarantine: {}.", QUARANTINE.runs().count());
    let next = self::space(mm::booked(), NEXT_PAGES)?;
    let owner = Next { space: next };
    let has_the_frame = owner.takes(stuck)?;
    let in_time = edu::is_busy().unwrap_or(false);
    edu::wait_idle();
    let damaged = owner.damaged_page()?;
    drop(owner);
    match damaged {
        Some(page) => say!(verbose, "The next owner finds \"{TEXT}\" in its page {page}."),
        None => say!(verbose, "The next owner finds what it wrote."),
    }
    if !in_time || left.pinned_pages != 1 {
        return Err(format!("the device was too fast, or {left:?}"));
    }
    if twin {
        let lost = has_the_frame && damaged.is_some();
        return if lost { nothing_is_left() } else { Err("the frame went to nobody".into()) };
    }
    if has_the_frame || damaged.is_some() || bytes(stuck) != MESSAGE {
        return Err("the frame was given to the next owner".into());
    }
    // SAFETY: the device is idle, and knows of no other transfer.
    let released = unsafe { QUARANTINE.device_was_reset(mm::booked(), EDU) };
    LEDGER.strike_orphans();
    say!(verbose, "The device was reset: {released} run comes out of quarantine.");
    if released == 1 { nothing_is_left() } else { Err(format!("{released} runs released")) }
}

/// Whoever comes after the process.
struct Next {
    space: UserSpace<&'static Booked>,
}

impl Next {
    /// Fills all pages. Whether `frame` is among them.
    fn takes(&self, frame: Pfn) -> Result<bool, String> {
        let mut found = false;
        for page in 0..NEXT_PAGES {
            let pinned = pin(&self.space, page, 1, PROCESS + 1)?;
            pinned.copy_from(0, &[OWNED; MESSAGE.len()]).map_err(fail("fill"))?;
            found |= pinned.runs().iter().any(|run| run.first() == frame);
        }
        Ok(found)
    }

    /// A page that holds what nobody wrote there.
    fn damaged_page(&self) -> Result<Option<u64>, String> {
        for page in 0..NEXT_PAGES {
            let mut found = [0; MESSAGE.len()];
            pin(&self.space, page, 1, PROCESS + 1)?.copy_to(0, &mut found).map_err(fail("look"))?;
            if found != [OWNED; MESSAGE.len()] {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }
}

fn transfer(frame: Pfn, direction: Direction) -> Outcome {
    // SAFETY: a frame that is lent to the device until it is idle; or, with the twin, one whose next owner waits to see that.
    unsafe { edu::start(frame.address(), 0, MESSAGE.len() as u64, direction) }.map_err(fail("the device"))
}

fn bytes(frame: Pfn) -> [u8; MESSAGE.len()] {
    // SAFETY: a pinned frame, in the direct map.
    unsafe { memory::direct(frame.address()).cast::<[u8; MESSAGE.len()]>().read_volatile() }
}

fn clear(frame: Pfn) {
    // SAFETY: as above; the device does not write it now.
    unsafe { memory::direct(frame.address()).cast::<[u8; MESSAGE.len()]>().write_volatile([0; MESSAGE.len()]) };
}
