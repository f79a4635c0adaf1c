//! What guards and raw handles take, in a kernel that keeps no ledger: there, what nobody asked for takes no room.

use pagepin::pin::{GotPages, Lent, OwnedPins, PhysRun, PinnedPages, PinnedRange, RawGets, RawPins, Write};
use pagepin::space::UserSpace;
use pagepin::{BootPlatform, SingleCpu, Unlimited};

type Kernel = BootPlatform<SingleCpu, SingleCpu>;
type Space = UserSpace<&'static Kernel>;
type One = [PhysRun; 1];

/// Buffer, range, how far it came and why no further; for pins the flags; a ticket if there is a ledger.
const _: () = assert!(size_of::<RawGets<One>>() == 64 && size_of::<RawPins<Write, One>>() == 72);
const _: () = assert!(size_of::<RawPins<Write, One, u64>>() == 80);

/// And a reference to who lent them.
const _: () = assert!(size_of::<GotPages<'static, &'static Kernel, One>>() == 72);
const _: () = assert!(size_of::<PinnedPages<'static, Space, Write, One>>() == 80);
const _: () = assert!(size_of::<PinnedRange<&'static Space, Write, One>>() == 80);
const _: () = assert!(size_of::<OwnedPins<&'static Kernel, Unlimited, Write, One>>() == 80);

/// And the number of the device.
const _: () = assert!(size_of::<Lent<&'static Space, Write, One>>() == 88);
