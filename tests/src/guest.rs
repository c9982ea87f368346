//! A QEMU guest: with the Linux kernel's initiator and a script of the test's, booted from what `make setup` built, or booted from
//! a LUN.
//!
//! The guest's first process says on the console how far it is, in lines that begin with `guest: `. This
//! machine's loopback is 10.0.2.2 there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use gateway::LunUrl;
use tempfile::TempDir;

use crate::node::{has_tool, skipped_without};

/// What every script may use.
const COMMON: &str = include_str!("../guest/common.sh");
const INIT: &str = include_str!("../guest/init");
/// The emulated machine. What is left out of the kernel's start is slow under emulation and of no use here.
const KERNEL_COMMAND: &str = "console=ttyS0 tsc=reliable no_timer_check mitigations=off cryptomgr.notests \
                              random.trust_cpu=on 8250.nr_uarts=1 quiet panic=-1";

/// Seconds after which a guest that says nothing hangs, however busy the machine is.
const SILENCE: u32 = 600;

/// Kernel and initial file system.
#[derive(Debug)]
pub struct Image {
    folder: PathBuf,
}

impl Image {
    /// A disk of 81 MiB that a machine boots from; what it does is `tests/guest/root`.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// The image; says that the test is skipped where it, or QEMU, is missing.
    pub fn find() -> Option<Self> {
        if !has_tool("qemu-system-x86_64") {
            return None;
        }
        let own = std::env::current_exe().ok()?;
        let folders = own.ancestors().skip(2).take(2).map(|folder| folder.join("guest"));
        let found = folders.into_iter().find(|folder| folder.join("initramfs").exists());
        if found.is_none() {
            skipped_without("the guest of the kernel initiator");
        }
        found.map(|folder| Self { folder })
    }
}

/// A guest that runs. It ends with this value.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    console: Receiver<String>,
    _folder: TempDir,
}

impl Guest {
    /// Boots a guest that runs a script, in which these words are set.
    ///
    /// # Panics
    /// When QEMU does not start.
    pub fn boot(image: &Image, script: &str, words: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let initrd = folder.path().join("initrd");
        let words: String = words.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let mut bytes = std::fs::read(image.folder.join("initramfs")).expect("an initial file system");
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        // A second archive is unpacked over the first.
        for (name, mode, text) in
            [("init", 0o755, INIT), ("common.sh", 0o644, COMMON), ("run.sh", 0o644, &(words + script))]
        {
            append(&mut bytes, name, mode, text.as_bytes());
        }
        append(&mut bytes, "TRAILER!!!", 0, &[]);
        std::fs::write(&initrd, bytes).expect("written");
        let mut qemu = emulator();
        qemu.arg("-kernel").arg(image.folder.join("vmlinux")).arg("-initrd").arg(&initrd);
        qemu.args(["-append", KERNEL_COMMAND, "-device", "virtio-net-pci,netdev=n0,romfile="]);
        Self::start(qemu.args(["-netdev", "user,id=n0"]), folder)
    }

    /// Boots a guest whose disk is a LUN, which the emulator's own initiator reaches. `modules` has its iSCSI driver.
    ///
    /// # Panics
    /// When QEMU does not start.
    pub fn boot_from_disk(url: &str, modules: &Path) -> Self {
        let mut qemu = emulator();
        qemu.env("QEMU_MODULE_DIR", modules);
        qemu.args(["-drive", &format!("file={url},format=raw,if=none,id=d0,cache=none")]);
        qemu.args(["-device", "virtio-blk-pci,drive=d0,bootindex=0"]);
        Self::start(&mut qemu, TempDir::new().expect("a folder"))
    }

    /// Boots a guest without a disk: iPXE in its network card's ROM is told by DHCP to boot from a LUN, and leaves word of it
    /// to the kernel's initiator (iBFT).
    ///
    /// # Panics
    /// When QEMU does not start, or the URL is not one of a portal on loopback.
    pub fn boot_from_network(image: &Image, url: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let LunUrl { portal, target, lun } = url.parse().expect("a URL of a LUN");
        assert!(portal.ip().is_loopback(), "{url}");
        let script = format!(
            "#!ipxe\nset initiator-iqn iqn.2026-11.example:guest\n\
             sanboot --drive 0x80 iscsi:10.0.2.2::{}:{lun:x}:{target}\n",
            portal.port()
        );
        std::fs::write(folder.path().join("boot.ipxe"), script).expect("written");
        let rom = image.folder.join("root/usr/lib/ipxe/qemu/pxe-e1000.rom");
        let mut qemu = emulator();
        qemu.args(["-netdev", &format!("user,id=n0,bootfile=boot.ipxe,tftp={}", folder.path().display())]);
        let card = format!("e1000,netdev=n0,bootindex=0,romfile={}", rom.display());
        Self::start(qemu.args(["-device", &card]), folder)
    }

    fn start(qemu: &mut Command, folder: TempDir) -> Self {
        let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, console) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, console, _folder: folder }
    }

    /// Tells what the guest says until its script has ended well.
    ///
    /// # Panics
    /// When the script fails, or takes more CPU time than this.
    pub fn run(&mut self, limit: Duration, mut told: impl FnMut(&str)) {
        let (mut said, mut silent) = (Vec::new(), 0);
        loop {
            match self.console.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    silent = 0;
                    let line = line.trim_end().to_owned();
                    let word = line.strip_prefix("guest: ").map(str::to_owned);
                    said.push(line);
                    match word.as_deref() {
                        Some("it ends well") => return,
                        Some("FAILED") => panic!("the guest fails:\n{}", said.join("\n")),
                        Some(word) => told(word),
                        None => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    silent += 1;
                    let used = self.cpu_time();
                    let hangs = used > limit || silent > SILENCE;
                    assert!(!hangs, "the guest hangs, {used:?} of CPU time:\n{}", said.join("\n"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the guest ends before its script:\n{}", said.join("\n"))
                }
            }
        }
    }

    /// CPU time of the emulator: a machine that is busy is not a guest that hangs.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Behind the command's name, which is in parentheses: fields 14 and 15 of all, in ticks of 10 ms.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It was started here, and nobody else waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine without a disk or a network.
fn emulator() -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-M",
        "q35,graphics=off",
        "-cpu",
        "max,la57=off",
        "-m",
        "512",
        "-smp",
        "1",
    ]);
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-monitor", "none"]);
    qemu
}

/// Appends a file to an archive in cpio's "newc" form.
fn append(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let is_file = if mode == 0 { 0 } else { 0o100_000 };
    let (size, name_size) = (data.len(), name.len() + 1);
    let fields = [1, is_file | mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    archive.extend_from_slice(b"070701");
    fields.iter().for_each(|field| archive.extend_from_slice(format!("{field:08x}").as_bytes()));
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
