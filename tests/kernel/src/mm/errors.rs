//! The library's errors as this kernel's error numbers.

use pagepin::{
    pin::PinError,
    space::{ForkError, SpaceError},
};
use pagepin_abi::Error;

pub fn space(error: SpaceError) -> Error {
    match error {
        SpaceError::Range(_) | SpaceError::InvalidKey | SpaceError::InvalidFlags => Error::Invalid,
        SpaceError::LargeLeaf => Error::NotSupported,
        SpaceError::Overlap | SpaceError::Pinned(_) => Error::Busy,
        SpaceError::NoVma | SpaceError::NoObject => Error::NotFound,
        SpaceError::AccessDenied => Error::Denied,
        SpaceError::TooManyVmas => Error::Limit,
        SpaceError::NoMemory | SpaceError::NoRoom | SpaceError::NoSlot => Error::NoMemory,
        _ => Error::Fault,
    }
}

pub fn fork(error: ForkError) -> Error {
    match error {
        ForkError::NoMemory => Error::NoMemory,
        ForkError::CountOverflow => Error::Limit,
        _ => Error::Fault,
    }
}

pub fn pin(error: PinError) -> Error {
    match error {
        PinError::Range(_) | PinError::InvalidFlags => Error::Invalid,
        PinError::AccessDenied | PinError::ProtectionKey => Error::Denied,
        PinError::NotPinnable => Error::NotSupported,
        PinError::NoMemory | PinError::NoPinnableMemory => Error::NoMemory,
        PinError::CountOverflow | PinError::BudgetExceeded | PinError::BufferTooSmall => Error::Limit,
        PinError::WouldFault | PinError::Contended | PinError::Incomplete => Error::Busy,
        _ => Error::Fault,
    }
}
