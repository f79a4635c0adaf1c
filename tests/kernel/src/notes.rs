//! Notes between processes. Those that fork share no memory that both can write, and the
//! scenes need to take turns.

use core::sync::atomic::{AtomicU64, Ordering};

use pagepin_abi::{Error, NOTES};

static SLOTS: [AtomicU64; NOTES as usize] = [const { AtomicU64::new(0) }; NOTES as usize];

fn slot(number: u64) -> Result<&'static AtomicU64, Error> {
    usize::try_from(number).ok().and_then(|number| SLOTS.get(number)).ok_or(Error::Invalid)
}

pub fn write(number: u64, value: u64) -> Result<(), Error> {
    // Release pairs with `read`: what was done before the note is done for its reader.
    slot(number)?.store(value, Ordering::Release);
    Ok(())
}

pub fn read(number: u64) -> Result<u64, Error> {
    Ok(slot(number)?.load(Ordering::Acquire))
}

/// Before a program that nothing else runs beside.
pub fn clear() {
    SLOTS.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
}
