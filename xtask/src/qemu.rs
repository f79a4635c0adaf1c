//! Boots the image in QEMU and collects what the kernel reports.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::child::{Event, Running};
use crate::protocol::{self, Line, Transcript};
use crate::screen;
use crate::setup;

pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// The devices that the kernel needs and distributions may leave out.
pub(crate) const DEVICES: [&str; 3] = ["edu", "isa-debug-exit", "intel-iommu"];

/// The kernel writes 0x10 to `isa-debug-exit`, and the device turns a value `v` into the status `v << 1 | 1`.
const SUCCESS: i32 = 33;

/// The mode that needs a machine with an IOMMU, which the other modes do without.
pub(crate) const IOMMU_MODE: &str = "iommu";

/// The mode that runs all tests, also of files and swap.
pub(crate) const TEST_MODE: &str = "test";

/// Another mode that needs a disk beside the image, the file [`DISK`] in the same folder.
pub(crate) const DISK_MODE: &str = "disk";
pub(crate) const DISK: &str = "disk.img";

/// How the guest's CPUs are driven.
#[derive(Clone, Copy)]
pub(crate) enum Cpus {
    /// This many, each on a host thread of its own, so that races are real.
    Threads(u32),
    /// One, with a time-stamp counter that counts instructions; the model is the one Linux was measured on.
    Counted,
}

/// What the person at the terminal sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Lines meant for people as they are; machine lines as a short note of what they say.
    Human,
    /// Everything, untouched.
    Raw,
}

/// A disk image and the QEMU that boots it.
pub(crate) struct Image {
    pub(crate) disk: PathBuf,
    pub(crate) emulator: PathBuf,
}

pub(crate) struct Boot<'a> {
    pub(crate) image: &'a Image,
    pub(crate) mode: &'a str,
    pub(crate) cpus: Cpus,
    pub(crate) limit: Duration,
    pub(crate) echo: Echo,
}

/// How a boot ended.
pub(crate) struct Outcome {
    pub(crate) transcript: Transcript,
    /// Why the boot as such failed: time limit or exit status.
    pub(crate) failure: Option<String>,
}

impl Image {
    /// QEMU's version.
    pub(crate) fn emulator_version(&self) -> String {
        setup::version_line(&self.emulator).unwrap_or_default()
    }
}

impl Boot<'_> {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            // The unit comes before the devices that are behind it.
            if self.mode == IOMMU_MODE { "-M q35 -device intel-iommu,intremap=off" } else { "-M pc" },
            "-m 512 -display none -no-reboot -serial stdio -nic none",
            "-device edu,dma_mask=0xffffffff",
            "-device isa-debug-exit,iobase=0xf4,iosize=0x04",
        ]
        .iter()
        .flat_map(|group| group.split(' '))
        .map(str::to_owned)
        .collect();
        let cpus = match self.cpus {
            Cpus::Threads(count) => format!("-accel tcg,thread=multi -cpu max -smp {count}"),
            Cpus::Counted => "-accel tcg -icount shift=0 -smp 1 -cpu max,-la57,-erms".to_owned(),
        };
        arguments.extend(cpus.split(' ').map(str::to_owned));
        // QEMU reads a doubled comma as one that belongs to the value.
        let image = self.image.disk.display().to_string().replace(',', ",,");
        arguments.push("-fw_cfg".to_owned());
        arguments.push(format!("name=opt/pagepin/mode,string={}", self.mode.replace(',', ",,")));
        if [TEST_MODE, DISK_MODE].contains(&self.mode) {
            let disk = self.image.disk.with_file_name(DISK).display().to_string().replace(',', ",,");
            arguments.extend(["-device", "virtio-blk-pci,drive=disk,disable-legacy=on", "-drive"].map(str::to_owned));
            arguments.push(format!("if=none,id=disk,format=raw,file={disk}"));
        }
        // A snapshot needs no write lock, so that two boots of one image do not exclude each other.
        arguments.push("-drive".to_owned());
        arguments.push(format!("format=raw,snapshot=on,file={image}"));
        arguments
    }

    /// Runs to the end or to the time limit, printing as the kernel prints.
    pub(crate) fn run(&self) -> Result<Outcome> {
        self.run_with(|_| {})
    }

    /// The same for one who wants to see each line.
    pub(crate) fn run_with(&self, see: impl FnMut(&Line)) -> Result<Outcome> {
        self.watch(Command::new(&self.image.emulator).args(self.arguments()), see)
    }

    fn watch(&self, command: &Command, mut see: impl FnMut(&Line)) -> Result<Outcome> {
        let deadline = Instant::now() + self.limit;
        let mut guest = Running::start(command)?;
        let mut transcript = Transcript::default();
        let timed_out = loop {
            match guest.next(Some(deadline))? {
                Event::Line(_, text) => {
                    let line = protocol::parse(&text);
                    transcript.record(&line);
                    screen::log(&text);
                    self.show(&text, &line);
                    see(&line);
                    if matches!(line, Line::Test { .. }) && self.echo == Echo::Human {
                        screen::progress(transcript.passed + transcript.failed(), None, "tests");
                    }
                }
                Event::TimeOut => break true,
                Event::End => break false,
            }
        };
        let status = if timed_out { None } else { guest.wait(Some(deadline))? };
        let failure = match status {
            None => Some(format!("stopped after {} s without an end", self.limit.as_secs())),
            Some(status) if status.code() == Some(SUCCESS) => None,
            Some(status) => Some(format!("QEMU ended with {status}, success would be {SUCCESS}")),
        };
        Ok(Outcome { transcript, failure })
    }

    fn show(&self, text: &str, line: &Line) {
        if self.echo == Echo::Raw {
            return screen::show(text);
        }
        match line {
            Line::Human(text) => screen::show(text),
            Line::Test { name, failure: None } => screen::show(&format!("  ok      {name}")),
            Line::Test { name, failure: Some(why) } => screen::show(&format!("  FAILED  {name}: {why}")),
            Line::Bench { key, value } => screen::show(&format!("  measured {key} = {value}")),
            Line::Garbled(text) => screen::show(&format!("  unreadable: {text}")),
            Line::Scene { .. } | Line::Done { .. } | Line::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(cpus: Cpus, image: &str) -> String {
        arguments_of_mode("test", cpus, image)
    }

    fn arguments_of_mode(mode: &str, cpus: Cpus, image: &str) -> String {
        let limit = Duration::from_secs(1);
        let image = &Image { disk: image.into(), emulator: PROGRAM.into() };
        let boot = Boot { image, mode, cpus, limit, echo: Echo::Human };
        boot.arguments().join(" ")
    }

    #[test]
    fn only_mode_iommu_puts_the_device_behind_one() {
        let with = arguments_of_mode(IOMMU_MODE, Cpus::Threads(4), "k.bin");
        let unit = with.find("intel-iommu").expect("a unit");
        assert!(with.contains("-M q35") && with.find("edu").is_some_and(|device| unit < device));
        assert!(!arguments(Cpus::Threads(4), "k.bin").contains("iommu"));
    }

    #[test]
    fn counted_boots_use_the_machine_linux_was_measured_on() {
        let line = arguments(Cpus::Counted, "k.bin");
        assert!(line.contains("-accel tcg -icount shift=0 -smp 1 -cpu max,-la57,-erms"));
        assert!(line.contains("-fw_cfg name=opt/pagepin/mode,string=test"));
    }

    #[test]
    fn threaded_boots_let_cpus_race() {
        assert!(arguments(Cpus::Threads(4), "k.bin").contains("tcg,thread=multi -cpu max -smp 4"));
    }

    #[test]
    fn comma_in_a_path_does_not_end_the_option() {
        assert!(arguments(Cpus::Counted, "a,b.bin").ends_with("snapshot=on,file=a,,b.bin"));
    }

    fn watch(script: &str, limit: Duration) -> Outcome {
        let image = &Image { disk: PathBuf::new(), emulator: PathBuf::new() };
        let boot = Boot { image, mode: "", cpus: Cpus::Counted, limit, echo: Echo::Human };
        boot.watch(Command::new("sh").args(["-c", script]), |_| {}).expect("sh starts")
    }

    #[test]
    fn success_is_the_exit_devices_status_and_nothing_else() {
        let limit = Duration::from_secs(60);
        let good = watch("echo '@test a ok'; printf '@done passed=1 failed=0'; exit 33", limit);
        assert_eq!(good.failure, None);
        assert_eq!(good.transcript.done, Some((1, 0)));
        for script in ["exit 0", "exit 35", "kill -9 $$"] {
            assert!(watch(script, limit).failure.is_some(), "{script}");
        }
    }

    #[test]
    fn silent_and_endless_kernels_are_stopped_at_the_limit() {
        for script in ["echo started; exec sleep 60", "exec yes started"] {
            let start = Instant::now();
            let outcome = watch(script, Duration::from_millis(300));
            assert!(start.elapsed() < Duration::from_secs(30));
            assert!(outcome.failure.is_some_and(|why| why.contains("stopped after")));
        }
    }
}
