//! The ring-3 image: one executable with all programs, put into a fresh space.

use elf::{
    ElfBytes,
    abi::{PF_W, PF_X, PT_LOAD},
    endian::LittleEndian,
};
use pagepin_abi::{Error, PROT_EXEC, PROT_WRITE};

use crate::{memory::PAGE, mm::AddressSpace};

static IMAGE: &[u8] = include_bytes!(env!("PAGEPIN_USER_ELF"));

/// Maps and fills the segments; returns the entry point.
pub fn load(space: &AddressSpace) -> Result<u64, Error> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(IMAGE).map_err(|_| Error::Invalid)?;
    let segments = file.segments().ok_or(Error::Invalid)?;
    for segment in segments.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0) {
        let start = segment.p_vaddr / PAGE * PAGE;
        let end = segment
            .p_vaddr
            .checked_add(segment.p_memsz)
            .and_then(|end| end.checked_next_multiple_of(PAGE))
            .ok_or(Error::Invalid)?;
        let mut prot = 0;
        if segment.p_flags & PF_W != 0 {
            prot |= PROT_WRITE;
        }
        if segment.p_flags & PF_X != 0 {
            prot |= PROT_EXEC;
        }
        space.map(start, end - start, prot)?;
        let bytes = file.segment_data(&segment).map_err(|_| Error::Invalid)?;
        space.load(segment.p_vaddr, bytes)?;
    }
    Ok(file.ehdr.e_entry)
}
