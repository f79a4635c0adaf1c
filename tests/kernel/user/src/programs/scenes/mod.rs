//! The scenes: what happens to memory when fork, devices and threads meet. Each is run
//! with the library and with a twin that leaves one thing out, and tells what it does.
//!
//! Exit code 0: nothing was lost. 1: something was, as it must be with the twin.

mod dma;
mod iommu;
mod references;
mod stage;
mod threads;

use pagepin_abi::{Scene, SceneRun};

use stage::Stage;

pub fn run(argument: u64) -> u32 {
    let run = SceneRun::from_bits(argument).expect("a scene");
    let stage = Stage { twin: run.twin, verbose: run.verbose };
    let kept = match run.scene {
        Scene::DeviceWrites => dma::device_writes(&stage),
        Scene::DeviceReads => dma::device_reads(&stage),
        Scene::OldReference => references::old_reference(&stage),
        Scene::ReadPin => references::read_pin(&stage),
        Scene::ThreeThreads => threads::three_threads(&stage),
        Scene::LentRange => iommu::lent_range(&stage),
        Scene::LentForReading => iommu::lent_for_reading(&stage),
        Scene::StrayAccess => iommu::stray_access(&stage),
    };
    u32::from(!kept)
}
