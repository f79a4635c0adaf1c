//! The device behind an IOMMU. A mode of its own, because from then on the device's
//! addresses are not physical ones, and because it takes another machine (q35).

use alloc::format;

use pagepin_abi::{Program, Scene, SceneRun, Status};

use super::{
    Outcome, run_balanced,
    scenes::{self, Act, CARDS},
    storm,
};
use crate::{iommu, notes, println};

/// Name of the test, its scene, and whether it is the twin that runs, which has to lose
/// something.
const TESTS: &[(&str, Scene, bool)] = &[
    ("iommu_device_uses_what_is_lent_to_it", Scene::LentRange, false),
    ("iommu_read_pin_blocks_device_writes", Scene::LentForReading, false),
    ("iommu_stray_access_after_unpin_changes_nothing", Scene::StrayAccess, false),
    ("iommu_twin_that_keeps_the_cache_loses_data", Scene::StrayAccess, true),
];

/// Rounds of the storm, which lends and takes back on all CPUs.
const STORM_ROUNDS: u16 = 1000;

pub fn run(report: &mut dyn FnMut(&str, Outcome)) {
    let enabled = iommu::enable().map_err(|error| format!("{error:?}"));
    let failed = enabled.is_err();
    report("iommu_translates", enabled);
    if failed {
        return;
    }
    println!("(What QEMU itself says about permissions and failed translations is what this is about.)");
    for &(name, scene, twin) in TESTS {
        report(name, play(scene, twin));
    }
    for scene in [Scene::DeviceWrites, Scene::DeviceReads] {
        for card in CARDS.iter().filter(|card| matches!(card.act, Act::Program(of) if of == scene)) {
            scenes::run_both(card, report);
        }
    }
    report("iommu_pins_of_every_kind", run_balanced(Program::BadPins, 0, Status::Exited(0)));
    report(storm::TESTS[0], storm::run_once(storm::first_seed(), STORM_ROUNDS, false));
}

fn play(scene: Scene, twin: bool) -> Outcome {
    notes::clear();
    let run = SceneRun { scene, twin, verbose: false };
    let outcome = run_balanced(Program::Scene, run.to_bits(), Status::Exited(u32::from(twin)));
    // Whatever the twin has left behind.
    iommu::invalidate_all();
    outcome
}
