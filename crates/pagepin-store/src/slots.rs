//! [`Slots`]: swap.

use alloc::vec::Vec;

use pagepin::{Env, ExtraParts, FreshPage, NoPreempt, NotReady, Pfn, SlotStore, StoredPage, Token, TokenError};
use spin::mutex::SpinMutex;

use crate::device::{Answer, Device, DeviceError, ReadRequest, WriteRequest};

/// No slot.
const NONE: u32 = u32::MAX;

/// What [`Slots::write_out`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WrittenOut {
    /// Frames that were given back.
    pub freed: u32,
    /// Pages that the device has, and will answer for later.
    pub started: u32,
    /// Pages that it failed to write, which stay in memory.
    pub failed: u32,
}

/// A slot, at the moment when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Entries of page tables that hold it, and swap-outs that have reserved it.
    pub holders: u32,
    /// The page's frame, if it is in memory.
    pub frame: Option<Pfn>,
    /// Whether the device has the page.
    pub on_device: bool,
}

/// Swap slots, each with the number of those who hold it, over a device that has a page for each.
///
/// A page that comes stays in memory until it is [written out](Self::write_out): so swapping out is no input or output, and who wants the page
/// back before gets the frame that went.
pub struct Slots<D> {
    device: D,
    inner: SpinMutex<Inner>,
}

struct Inner {
    slots: Vec<Slot>,
    /// The first of those that are free.
    free: u32,
    /// The pages in memory that nobody writes or reads, in the order in which they came.
    oldest: u32,
    newest: u32,
    used: u32,
}

struct Slot {
    holders: u32,
    page: Option<StoredPage>,
    on_device: bool,
    /// The device could not read it.
    failed: bool,
    /// What the device does with it. The slot is not free before.
    under_way: bool,
    older: u32,
    /// Of a free slot: the next that is free.
    newer: u32,
}

impl Slot {
    const FREE: Self =
        Self { holders: 0, page: None, on_device: false, failed: false, under_way: false, older: NONE, newer: NONE };
}

impl Inner {
    /// A slot that somebody holds.
    fn held(&mut self, token: Token) -> Result<&mut Slot, TokenError> {
        let slot = usize::try_from(token.number()).ok().and_then(|number| self.slots.get_mut(number));
        slot.filter(|slot| slot.holders > 0).ok_or(TokenError::Lost)
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        &mut self.slots[number as usize]
    }

    /// The page of the slot is the newest of those that could be written out.
    fn link(&mut self, number: u32) {
        let last = core::mem::replace(&mut self.newest, number);
        (self.slot(number).older, self.slot(number).newer) = (last, NONE);
        if last == NONE {
            self.oldest = number;
        } else {
            self.slot(last).newer = number;
        }
    }

    fn unlink(&mut self, number: u32) {
        let (older, newer) = (self.slot(number).older, self.slot(number).newer);
        if older == NONE {
            self.oldest = newer;
        } else {
            self.slot(older).newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.slot(newer).older = older;
        }
    }

    /// Nobody holds the slot, nor does the device. Its page, if it has one.
    fn free(&mut self, number: u32) -> Option<StoredPage> {
        let free = core::mem::replace(&mut self.free, number);
        self.used -= 1;
        core::mem::replace(self.slot(number), Slot { newer: free, ..Slot::FREE }).page
    }

    /// The device is done with a slot: its number, unless nobody holds it any more.
    fn ended(&mut self, number: u64) -> Option<u32> {
        let number = u32::try_from(number).ok()?;
        let slot = self.slots.get_mut(number as usize)?;
        if !core::mem::take(&mut slot.under_way) {
            return None;
        }
        if slot.holders == 0 {
            self.free(number);
            return None;
        }
        Some(number)
    }
}

impl<D: Device<u64>> Slots<D> {
    /// As many slots as `device` has pages. `None`: the heap has no room to note them.
    pub fn new(device: D, slots: u32) -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(slots as usize).ok()?;
        let next = |number: u32| if number + 1 < slots { number + 1 } else { NONE };
        all.extend((0..slots).map(|number| Slot { newer: next(number), ..Slot::FREE }));
        let free = if slots > 0 { 0 } else { NONE };
        let inner = Inner { slots: all, free, oldest: NONE, newest: NONE, used: 0 };
        Some(Self { device, inner: SpinMutex::new(inner) })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn with<K: Env, R>(&self, kernel: &K, work: impl FnOnce(&mut Inner) -> R) -> R {
        let _stay = ExtraParts::no_preempt(kernel.extras()).enter();
        work(&mut self.inner.lock())
    }

    /// How many slots somebody holds, or the device is not done with.
    pub fn used<K: Env>(&self, kernel: &K) -> u32 {
        self.with(kernel, |inner| inner.used)
    }

    /// What is known of a slot. `None`: nobody holds it.
    pub fn state<K: Env>(&self, kernel: &K, token: Token) -> Option<SlotState> {
        self.with(kernel, |inner| {
            let slot = inner.held(token).ok()?;
            let frame = slot.page.as_ref().map(StoredPage::frame);
            Some(SlotState { holders: slot.holders, frame, on_device: slot.on_device })
        })
    }

    /// Gives back the frames of up to `most` pages, the oldest first, of which each is written before, unless the device has it already. For
    /// who is short of memory.
    pub fn write_out<K: Env>(&self, kernel: &K, most: u32) -> WrittenOut {
        let mut done = WrittenOut::default();
        for _ in 0..most {
            let Some((page, request)) = self.with(kernel, |inner| oldest(inner, kernel)) else { break };
            if let Some(page) = page {
                page.put(kernel);
                done.freed += 1;
            }
            let Some(request) = request else { continue };
            match self.device.write(kernel, request) {
                Answer::Later => done.started += 1,
                Answer::Done(request, result) => {
                    self.write_ended(kernel, request, result);
                    *(if result.is_ok() { &mut done.freed } else { &mut done.failed }) += 1;
                }
            }
        }
        done
    }

    /// The device is done with a page that it [was to write](Device::write). Who waits for the slot can go on.
    pub fn write_ended<K: Env>(
        &self,
        kernel: &K,
        request: WriteRequest<u64>,
        result: Result<(), DeviceError>,
    ) -> NotReady {
        let page = self.with(kernel, |inner| {
            let number = inner.ended(request.at)?;
            if result.is_err() {
                inner.link(number);
                return None;
            }
            inner.slot(number).on_device = true;
            inner.slot(number).page.take()
        });
        page.into_iter().chain([request.page]).for_each(|page| page.put(kernel));
        NotReady(request.at)
    }

    /// The device is done with a page that it [was to read](Device::read). Who waits for it can go on.
    pub fn read_ended<K: Env>(
        &self,
        kernel: &K,
        request: ReadRequest<u64>,
        result: Result<(), DeviceError>,
    ) -> NotReady {
        let page = request.page.finish_closed();
        let unused = self.with(kernel, |inner| {
            let Some(number) = inner.ended(request.at) else { return Some(page) };
            if result.is_err() {
                inner.slot(number).failed = true;
                return Some(page);
            }
            inner.slot(number).page = Some(page);
            inner.link(number);
            None
        });
        unused.into_iter().for_each(|page| page.put(kernel));
        NotReady(request.at)
    }

    /// What the device failed to read is [`Lost`](TokenError::Lost) until this asks it again.
    ///
    /// # Errors
    /// [`TokenError::Lost`]: nobody holds the token.
    pub fn retry<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        self.with(kernel, |inner| inner.held(token).map(|slot| slot.failed = false))
    }
}

/// The oldest page in memory, to be given up, or a request to write it. It is not in the list any more.
fn oldest<K: Env>(inner: &mut Inner, kernel: &K) -> Option<(Option<StoredPage>, Option<WriteRequest<u64>>)> {
    let number = inner.oldest;
    if number == NONE {
        return None;
    }
    if inner.slot(number).on_device {
        inner.unlink(number);
        return Some((inner.slot(number).page.take(), None));
    }
    let page = inner.slot(number).page.as_ref()?.get(kernel)?;
    inner.unlink(number);
    inner.slot(number).under_way = true;
    Some((None, Some(WriteRequest { at: u64::from(number), page, ticket: 0 })))
}

impl<D: Device<u64>> SlotStore for Slots<D> {
    fn reserve(&self) -> Result<Token, TokenError> {
        let mut inner = self.inner.lock();
        let number = inner.free;
        let token = Token::new(u64::from(number)).filter(|_| number != NONE).ok_or(TokenError::Full)?;
        inner.free = inner.slot(number).newer;
        inner.used += 1;
        *inner.slot(number) = Slot { holders: 1, ..Slot::FREE };
        Ok(token)
    }

    fn fill<K: Env>(&self, kernel: &K, token: Token, page: StoredPage) {
        let surplus = self.with(kernel, |inner| match inner.held(token) {
            Ok(slot) if slot.page.is_none() && !slot.on_device && !slot.under_way => {
                slot.page = Some(page);
                inner.link(token.number() as u32);
                None
            }
            // Nobody has reserved it.
            _ => Some(page),
        });
        surplus.into_iter().for_each(|page| page.put(kernel));
    }

    fn duplicate(&self, token: Token) -> Result<(), TokenError> {
        let mut inner = self.inner.lock();
        let slot = inner.held(token)?;
        slot.holders = slot.holders.checked_add(1).ok_or(TokenError::Full)?;
        Ok(())
    }

    fn release<K: Env>(&self, kernel: &K, token: Token) {
        let page = self.with(kernel, |inner| {
            let slot = inner.held(token).ok()?;
            slot.holders -= 1;
            if slot.holders > 0 {
                return None;
            }
            let (number, under_way, in_memory) = (token.number() as u32, slot.under_way, slot.page.is_some());
            if under_way {
                return slot.page.take();
            }
            if in_memory {
                inner.unlink(number);
            }
            inner.free(number)
        });
        page.into_iter().for_each(|page| page.put(kernel));
    }

    fn fetch<K: Env>(&self, kernel: &K, token: Token) -> Result<(), TokenError> {
        let later = TokenError::NotReady(NotReady(token.number()));
        if self.with(kernel, |inner| inner.held(token)?.is_there(token))? {
            return Ok(());
        }
        let page = FreshPage::of_slot(kernel).ok_or(TokenError::NoMemory)?;
        // Another thread may have begun to read meanwhile.
        let request =
            self.with(kernel, |inner| match inner.held(token).and_then(|slot| Ok((slot.is_there(token)?, slot))) {
                Ok((true, _)) => Err((page, Ok(()))),
                Ok((false, slot)) => {
                    slot.under_way = true;
                    Ok(ReadRequest { at: token.number(), page, ticket: 0 })
                }
                Err(error) => Err((page, Err(error))),
            });
        let request = match request {
            Ok(request) => request,
            Err((page, outcome)) => {
                page.put(kernel);
                return outcome;
            }
        };
        match self.device.read(kernel, request) {
            Answer::Later => Err(later),
            Answer::Done(request, result) => {
                self.read_ended(kernel, request, result);
                result.map_err(|DeviceError| TokenError::Lost)
            }
        }
    }

    fn bring<K: Env>(&self, kernel: &K, token: Token) -> Result<StoredPage, TokenError> {
        self.with(kernel, |inner| {
            let slot = inner.held(token)?;
            let page = slot.page.as_ref().ok_or(TokenError::NotReady(NotReady(token.number())))?;
            page.get(kernel).ok_or(TokenError::NoMemory)
        })
    }
}

impl Slot {
    /// Whether the page is in memory; if not, it can be read.
    fn is_there(&self, token: Token) -> Result<bool, TokenError> {
        match self {
            Self { page: Some(_), .. } => Ok(true),
            // It does not matter what for: a page that is written is in memory.
            Self { under_way: true, .. } => Err(TokenError::NotReady(NotReady(token.number()))),
            Self { failed: true, .. } | Self { on_device: false, .. } => Err(TokenError::Lost),
            _ => Ok(false),
        }
    }
}
