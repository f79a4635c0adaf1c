//! What drivers ask for: several ranges at once, buffers that are too small, pointers, access as a value, and an end in an
//! interrupt.

use pagepin::frame::{Dirty, Layout};
use pagepin::pin::{
    AnyPinned, Owner, PhysRun, PinError, PinFlags, PinHandle, PinnedPages, PinnedRange, PinnedVec, RawPins, Read,
    UserVec, UserVecError, Write, pin_user_pages_in_parts, pin_user_pages_in_vec, unpin_user_runs,
};
use pagepin::{Access, Levels, PinBudget, PinTerm, RangeError, Unlimited};

use crate::machine::{A, Machine, PAGE, RW, range, runs};

every_layout!(
    ranges_are_one_buffer,
    a_range_that_cannot_be_pinned_unpins_the_others,
    any_range_goes_through_one_run,
    there_are_as_many_runs_as_it_takes,
    views_lead_to_the_bytes,
    access_is_what_was_asked_for,
    an_interrupt_completes_a_pin_after_its_process,
    a_list_of_several_pins_is_released_by_one_call,
    pins_go_through_c_as_numbers,
);

/// Three ranges of six pages, which lie apart in memory: 5000 bytes, 3 bytes, 4096 bytes.
const PAIRS: [(u64, u64); 4] = [(A + 100, 5000), (A + 3 * PAGE - 1, 3), (A + 17, 0), (A + 5 * PAGE, PAGE)];

fn half() -> pagepin::UserHalf {
    Levels::Four.user_half()
}

fn ranges_are_one_buffer<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.memory().scatter(true);
    let process = machine.populated(6, 1);
    let vec = UserVec::new(half(), PAIRS).unwrap();
    assert_eq!((vec.ranges().len(), vec.length()), (3, 9099));
    let pinned = PinnedVec::pin(&process, Write, &vec, PinFlags::empty()).unwrap();
    assert_eq!((pinned.parts().len(), pinned.length()), (3, 9099));
    // The device numbers the bytes through.
    let mut number = 0;
    for run in pinned.byte_runs() {
        let bytes: Vec<u8> = (number..number + run.length).map(|byte| byte as u8).collect();
        machine.dma_write(run.address, &bytes);
        number += run.length;
    }
    assert_eq!(number, vec.length());
    let places: Vec<u64> = PAIRS.iter().flat_map(|(start, length)| *start..start + length).collect();
    assert!(places.iter().zip(0_u64..).all(|(place, number)| machine.get(&process, *place) == number as u8));
    // So do copies, across the edges of the ranges.
    let mut bytes = [0; 10];
    pinned.copy_to(4996, &mut bytes).unwrap();
    assert!(bytes.iter().zip(4996_u64..).all(|(byte, number)| *byte == number as u8));
    pinned.copy_from(4996, &[0xee; 10]).unwrap();
    let changed = places.iter().filter(|place| machine.get(&process, **place) == 0xee).count();
    let were_so = (0..4996).chain(5006..9099).filter(|number| *number as u8 == 0xee).count();
    assert_eq!(changed, 10 + were_so);
    assert!(pinned.copy_to(9090, &mut bytes).is_err() && pinned.copy_to(u64::MAX, &mut bytes).is_err());
    let owned = pinned.into_owned().unwrap();
    drop(process);
    drop(owned);
    machine.check_balance();
}

#[test]
fn lists_of_absurd_lengths_are_refused_by_name() {
    let refused = |pairs: &mut dyn Iterator<Item = (u64, u64)>| UserVec::new(half(), pairs).err();
    let one = (0x1000, 1);
    assert_eq!(refused(&mut std::iter::repeat(one)), Some(UserVecError::TooManyRanges));
    assert_eq!(refused(&mut std::iter::repeat((0, 0))), Some(UserVecError::TooManyRanges), "empty ones end as well");
    assert_eq!(refused(&mut std::iter::repeat_n(one, UserVec::MAX_RANGES)), None);
    assert_eq!(refused(&mut std::iter::repeat_n(one, UserVec::MAX_RANGES + 1)), Some(UserVecError::TooManyRanges));
    let most = (0x1000, UserVec::MAX_LENGTH);
    assert_eq!(refused(&mut [most].into_iter()), None);
    assert_eq!(refused(&mut [most, one].into_iter()), Some(UserVecError::TooLong));
    assert_eq!(refused(&mut [(0x1000, 1 << 46); 8].into_iter()), Some(UserVecError::TooLong));
    for (start, length, error) in [
        (u64::MAX, 2, RangeError::Wraps),
        (1, u64::MAX, RangeError::NonCanonical),
        (u64::MAX - 5, 5, RangeError::KernelHalf),
    ] {
        let list = [one, (7, 0), (start, length)];
        assert_eq!(refused(&mut list.into_iter()), Some(UserVecError::Range { index: 2, error }));
    }
}

fn a_range_that_cannot_be_pinned_unpins_the_others<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    let vec = UserVec::new(half(), [(A, 2 * PAGE), (A + 9 * PAGE, 1)]).unwrap();
    let refused = PinnedVec::pin(&process, Read, &vec, PinFlags::empty());
    assert_eq!(refused.err(), Some(PinError::NoVma));
    assert_eq!(machine.frame_at(&process, A).1.pins, 0);
    drop(process);
    machine.check_balance();
}

fn any_range_goes_through_one_run<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.memory().scatter(true);
    let process = machine.populated(5, 1);
    let all = range(&process, A + 4000, 3 * PAGE);
    let mut seen = Vec::new();
    let mut one = [PhysRun::default(); 1];
    pin_user_pages_in_parts(&process, Read, all, PinFlags::empty(), &mut one, |part| {
        let mut bytes = vec![0; part.range().length() as usize];
        part.copy_to(0, &mut bytes).unwrap();
        assert_eq!(part.range().start(), A + 4000 + seen.len() as u64);
        seen.extend(bytes);
        Ok::<(), PinError>(())
    })
    .unwrap();
    let wanted: Vec<u8> = (all.start()..all.end()).map(|address| machine.get(&process, address)).collect();
    assert_eq!(seen, wanted);
    // An error of the driver's ends it, and so does a page that cannot be pinned.
    let mut calls = 0;
    let stopped = pin_user_pages_in_parts(&process, Read, all, PinFlags::empty(), &mut one, |_| {
        calls += 1;
        if calls == 2 { Err(PinError::Contended) } else { Ok(()) }
    });
    assert_eq!((stopped, calls), (Err(PinError::Contended), 2));
    let too_far = range(&process, A + 4 * PAGE, 2 * PAGE);
    let refused = pin_user_pages_in_parts(&process, Read, too_far, PinFlags::empty(), &mut one, |_| Ok(()));
    assert_eq!(refused, Err(PinError::NoVma));
    let nothing = pin_user_pages_in_parts(&process, Read, all, PinFlags::empty(), &mut [], |_| Ok(()));
    assert_eq!(nothing, Err(PinError::BufferTooSmall));
    drop(process);
    machine.check_balance();
}

fn there_are_as_many_runs_as_it_takes<L: Layout>() {
    let machine = Machine::<L>::new(128);
    machine.memory().scatter(true);
    let process = machine.populated(50, 1);
    let all = range(&process, A, 50 * PAGE);
    let pinned = pin_user_pages_in_vec(&process, Write, all, PinFlags::empty()).unwrap();
    assert!(pinned.runs().len() > 16, "{} runs", pinned.runs().len());
    assert_eq!(pinned.byte_runs().map(|run| run.length).sum::<u64>(), 50 * PAGE);
    drop(pinned);
    let refused = pin_user_pages_in_vec(&process, Write, range(&process, A, 51 * PAGE), PinFlags::empty());
    assert_eq!(refused.err(), Some(PinError::NoVma));
    drop(process);
    machine.check_balance();
}

fn views_lead_to_the_bytes<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(4, 1);
    let pinned = process.pin(Write, range(&process, A + PAGE + 4090, PAGE + 10), runs(3)).unwrap();
    assert_eq!(pinned.runs().len(), 1, "contiguous in memory");
    let pieces: Vec<usize> = pinned.views().map(|view| view.len()).collect();
    assert_eq!(pieces, [6, 4096, 4], "none crosses a page");
    let mut bytes = Vec::new();
    for view in pinned.views() {
        let first = view.cast::<u8>().as_ptr();
        // SAFETY: the view is so long, and this one thread is all that accesses it.
        (0..view.len()).for_each(|offset| bytes.push(unsafe { first.add(offset).read_volatile() }));
    }
    let mut copied = vec![0; bytes.len()];
    pinned.copy_to(0, &mut copied).unwrap();
    assert_eq!(bytes, copied);
    drop(pinned);
}

fn access_is_what_was_asked_for<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let process = machine.populated(2, 1);
    process.map(A + 8 * PAGE, PAGE, pagepin::Rights::READ).unwrap();
    for access in [Access::Read, Access::Write] {
        let pinned = AnyPinned::pin(&process, access, range(&process, A, PAGE), PinFlags::empty(), runs(1)).unwrap();
        assert_eq!((pinned.access(), matches!(pinned, AnyPinned::Write(_))), (access, access == Access::Write));
        let mut byte = [0];
        assert_eq!(pinned.copy_to(0, &mut byte), Ok(()));
        assert_eq!(byte, [1]);
        let pinned = pinned.into_owned();
        assert_eq!(pinned.byte_runs().next().map(|run| run.address), Some(machine.physical(&process, A)));
        let (_, buffer) = pinned.release();
        assert_eq!(buffer.len(), 1);
    }
    let read_only = range(&process, A + 8 * PAGE, PAGE);
    let ask = |access| AnyPinned::pin(&process, access, read_only, PinFlags::empty(), runs(1)).map(|_| ()).err();
    assert_eq!(ask(Access::Read), None);
    assert_eq!(ask(Access::Write), Some(PinError::AccessDenied));
    assert_eq!(ask(Access::Execute), Some(PinError::InvalidFlags));
    drop(process);
    machine.check_balance();
}

/// A driver's requests, as its interrupt handler finds them: pins that own what they need.
struct Requests<'m, L: Layout>(Vec<PinnedRange<Free<'m, L>, Write, [PhysRun; 4]>>);

type Free<'m, L> = Owner<&'m Machine<L>, Unlimited>;

impl<L: Layout> Requests<'_, L> {
    /// The handler: the device is done with the oldest. No lock but the frame source's, and no memory of the heap is given back.
    fn interrupt(&mut self) -> u64 {
        let pinned = self.0.remove(0);
        let bytes = pinned.range().length();
        let (_, _runs) = pinned.release();
        bytes
    }
}

fn an_interrupt_completes_a_pin_after_its_process<L: Layout>() {
    let machine = Machine::<L>::new(64);
    let mut requests = Requests(Vec::new());
    let process =
        pagepin::space::UserSpace::new(&machine, pagepin::space::SpaceOptions::without_kernel_half(Levels::Four))
            .unwrap();
    process.map(A, 4 * PAGE, RW).unwrap();
    let pinned = process.pin(Write, process.range(A + 5, 3 * PAGE).unwrap(), [PhysRun::default(); 4]).unwrap();
    let frames: Vec<PhysRun> = pinned.runs().to_vec();
    requests.0.push(pinned.into_owned());
    drop(process);
    // The process is gone, and the device may still write where it was told to.
    for run in &frames {
        assert!(
            machine.memory().allocated().iter().any(|(frame, _)| *frame == run.first()),
            "a pinned frame was freed"
        );
        machine.dma_write(run.first().address(), b"late");
    }
    assert_eq!(requests.interrupt(), 3 * PAGE);
    machine.check_balance();
}

/// A block request: the pieces of several pins in one list, as the disk gets them, and what to uncharge.
struct Request {
    list: Vec<PhysRun>,
    held_pages: u64,
}

impl Request {
    /// In the completion interrupt, for all pieces at once and no more than the list: `bio_release_pages` on Linux.
    fn complete<L: Layout>(self, machine: &Machine<L>, budget: &impl PinBudget, dirty: Dirty) {
        // SAFETY: the runs left their guards when the request was made; it is completed once.
        unsafe { unpin_user_runs(machine, &self.list, dirty) };
        budget.uncharge(self.held_pages, PinTerm::Short);
    }
}

fn a_list_of_several_pins_is_released_by_one_call<L: Layout>() {
    for (dirty, is_dirty) in [(Dirty::Yes, true), (Dirty::No, false)] {
        let machine = Machine::<L>::new(64);
        machine.memory().scatter(true);
        let process = machine.process_within(16, pagepin::space::SpaceOptions::without_kernel_half(Levels::Four));
        process.map(A, 6 * PAGE, RW).unwrap();
        machine.put(&process, A + 5 * PAGE, 1);
        let mut request = Request { list: Vec::new(), held_pages: 0 };
        // One page is in the list twice, as where two buffers meet in it.
        for (start, length) in [(A + 100, 2 * PAGE), (A + 2 * PAGE + 50, 10), (A + 4 * PAGE, PAGE)] {
            let raw = machine.pin::<Read>(&process, start, length).unwrap().into_raw();
            request.list.extend_from_slice(raw.runs());
            request.held_pages += raw.charged_pages();
        }
        let frames: Vec<_> =
            request.list.iter().flat_map(|run| (0..run.pages()).map(|i| run.first().offset(i))).collect();
        let words = || frames.iter().map(|frame| machine.word(*frame).snapshot()).collect::<Vec<_>>();
        assert_eq!((frames.len(), process.budget().used()), (5, 5));
        assert!(words().iter().all(|word| word.pins != 0 && !word.dirty));
        // While an unmap has the mm lock: an interrupt comes when it likes.
        let budget = process.budget();
        let interrupt = || request.complete(&machine, budget, dirty);
        let unmapped = machine.before_acknowledgement(interrupt, || process.unmap(A + 5 * PAGE, PAGE).unwrap());
        assert_eq!(unmapped.pages, 1);
        assert!(words().iter().all(|word| word.pins == 0 && word.dirty == is_dirty));
        assert_eq!(process.budget().used(), 0);
    }
}

fn pins_go_through_c_as_numbers<L: Layout>() {
    let machine = Machine::<L>::new(64);
    machine.memory().scatter(true);
    let process = machine.populated(3, 1);
    let all = range(&process, A + 9, 2 * PAGE);
    let pinned = process.pin(Write, all, runs(4)).unwrap();
    let wanted = pinned.runs().to_vec();
    let (handle, buffer) = pinned.into_raw().into_handle();
    let numbers = PinHandle { start: A + 9, length: 2 * PAGE, pages: 3, runs: 3, flags: 0, writes: 1, reserved: 0 };
    assert_eq!(handle, numbers);
    // What can be seen to be wrong is refused.
    type Back<A> = Result<RawPins<A, Vec<PhysRun>>, PinError>;
    let refused = |handle| -> Back<Write> {
        // SAFETY: refused, so nothing comes back.
        unsafe { RawPins::from_handle(handle, buffer.clone()) }
    };
    let wrong = [
        (PinHandle { writes: 0, ..handle }, PinError::InvalidFlags),
        (PinHandle { reserved: 1, ..handle }, PinError::InvalidFlags),
        (PinHandle { flags: 1 << 31, ..handle }, PinError::InvalidFlags),
        (PinHandle { length: 0, ..handle }, PinError::Range(RangeError::Empty)),
        (PinHandle { runs: 5, ..handle }, PinError::BufferTooSmall),
        (PinHandle { runs: 2, ..handle }, PinError::Incomplete),
        (PinHandle { pages: 4, ..handle }, PinError::Incomplete),
        (PinHandle { length: PAGE, ..handle }, PinError::Incomplete),
    ];
    for (handle, error) in wrong {
        assert_eq!(refused(handle).err(), Some(error), "{handle:?}");
    }
    // SAFETY: as above.
    let read: Back<Read> = unsafe { RawPins::from_handle(handle, buffer.clone()) };
    assert_eq!(read.err(), Some(PinError::InvalidFlags));
    // SAFETY: the handle and the runs of above, once.
    let pins = unsafe { RawPins::<Write, _>::from_handle(handle, buffer) }.unwrap();
    assert_eq!(pins.runs(), wanted);
    // SAFETY: taken through this process's kernel.
    let back = unsafe { PinnedPages::from_raw(&process, pins) }.complete().unwrap();
    assert_eq!(back.range(), all);
    drop(back);
    drop(process);
    machine.check_balance();
}
