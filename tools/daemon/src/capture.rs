//! A link's frames in a file that Wireshark reads (pcap, with nanoseconds), while the link is at work.
//!
//! Owner: the control plane. The reactor copies frames and never waits: what the writer's thread has no room for is counted and left
//! out. A capture ends by itself.

use core::ops::ControlFlow;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use engine::Instant;
use net::smol::{Direction, Tap};

use crate::events::wall;

/// Frames on their way to the writer at the most.
const FRAMES_MAX: usize = 512;
/// Bytes of a file at the most.
const FILE_MAX: u64 = 4 << 30;
/// Says in which order the file's numbers are, and that times have nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// A frame, or its beginning.
struct Record {
    at: Instant,
    len: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    left_out: AtomicU64,
}

/// What a capture is of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The file; it must not be there yet.
    pub(crate) file: PathBuf,
    /// Bytes of each frame at the most.
    pub(crate) snap_len: u32,
    /// For how long.
    pub(crate) duration: Duration,
}

/// A capture that is under way, or has ended.
#[derive(Debug)]
pub(crate) struct Capture {
    file: PathBuf,
    counts: Arc<Counts>,
    writer: JoinHandle<io::Result<()>>,
}

impl Capture {
    /// Opens the file and starts its writer; the tap is for the link. `now` is the reactors' time.
    ///
    /// # Errors
    /// The system's: the file is there already, or cannot be made.
    pub(crate) fn start(
        plan: Plan,
        now: Instant,
    ) -> io::Result<(Self, impl FnOnce() -> Tap + Send + 'static)> {
        let Plan { file: path, snap_len, duration } = plan;
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(&path)?);
        file.write_all(&header(snap_len))?;
        file.flush()?;
        let (sender, frames) = sync_channel::<Record>(FRAMES_MAX);
        let counts = Arc::new(Counts::default());
        let epoch = wall() - now.since_epoch();
        let writer = std::thread::Builder::new().name("capture".to_owned()).spawn({
            let counts = counts.clone();
            move || write_all(file, &frames, epoch, &counts)
        })?;
        let until = now + duration;
        let tap = {
            let counts = counts.clone();
            move || {
                let see = move |at: Instant, _: Direction, frame: &[u8]| {
                    let bytes = frame[..frame.len().min(snap_len as usize)].to_vec();
                    match sender.try_send(Record { at, len: frame.len(), bytes }) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(TrySendError::Full(_)) => {
                            counts.left_out.fetch_add(1, Ordering::Relaxed);
                            ControlFlow::Continue(())
                        }
                        // The writer has failed, or the file is full.
                        Err(TrySendError::Disconnected(_)) => ControlFlow::Break(()),
                    }
                };
                Tap { until, see: Box::new(see) }
            }
        };
        Ok((Self { file: path, counts, writer }, tap))
    }

    /// Where it goes.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Frames written, and frames left out.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.frames.load(Ordering::Relaxed), self.counts.left_out.load(Ordering::Relaxed))
    }

    /// True while frames are written.
    pub(crate) fn is_running(&self) -> bool {
        !self.writer.is_finished()
    }
}

/// The file's header: version 2.4, no time zone.
fn header(snap_len: u32) -> [u8; 24] {
    let mut header = [0; 24];
    let fields = [MAGIC, 2 | 4 << 16, 0, 0, snap_len, ETHERNET];
    for (to, field) in header.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    header
}

/// What comes before a frame's bytes.
fn record_header(record: &Record, epoch: SystemTime) -> [u8; 16] {
    let time = (epoch + record.at.since_epoch()).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut header = [0; 16];
    let (kept, len) = (record.bytes.len() as u64, record.len as u64);
    let fields = [short(time.as_secs()), time.subsec_nanos(), short(kept), short(len)];
    for (to, field) in header.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_le_bytes());
    }
    header
}

fn write_all(
    mut file: BufWriter<File>,
    frames: &Receiver<Record>,
    epoch: SystemTime,
    counts: &Counts,
) -> io::Result<()> {
    let mut written = 0;
    while written < FILE_MAX {
        let record = match frames.try_recv() {
            Ok(record) => record,
            // A look at the file in between finds whole frames.
            Err(_) => {
                file.flush()?;
                let Ok(record) = frames.recv() else { break };
                record
            }
        };
        file.write_all(&record_header(&record, epoch))?;
        file.write_all(&record.bytes)?;
        written += 16 + record.bytes.len() as u64;
        counts.frames.fetch_add(1, Ordering::Relaxed);
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_in_the_file_as_wireshark_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("link.pcap");
        let plan = Plan { file: file.clone(), snap_len: 60, duration: Duration::from_secs(1) };
        let now = Instant::from_nanos(5_000_000_000);
        let (capture, tap) = Capture::start(plan.clone(), now).expect("a file");
        let error = Capture::start(plan, now).err().expect("the file is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let mut tap = tap();
        assert_eq!(tap.until, now + Duration::from_secs(1));
        assert!((tap.see)(now, Direction::In, &[7; 100]).is_continue());
        assert!((tap.see)(now + Duration::from_millis(1), Direction::Out, &[8; 42]).is_continue());
        drop(tap);
        while capture.is_running() {
            std::thread::yield_now();
        }
        assert_eq!(capture.counts(), (2, 0));
        let bytes = std::fs::read(&file).expect("the file");
        assert_eq!(bytes.len(), 24 + 16 + 60 + 16 + 42);
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!([number(0), number(4), number(16), number(20)], [MAGIC, 0x0004_0002, 60, ETHERNET]);
        assert_eq!([number(32), number(36)], [60, 100], "kept and whole length");
        let step = i64::from(number(100 + 4)) - i64::from(number(28));
        assert!(step == 1_000_000 || step == 1_000_000 - 1_000_000_000, "{step} ns apart");
    }
}
