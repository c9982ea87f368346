//! What the machine can do without this project: a bare TCP ping-pong of the same bytes, `pread` and `pwrite` one at a time,
//! copies and CRC32C. Bounds that a target's figures are read against.

use core::hint::black_box;
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use engine::{BUF_LEN_MAX, Clock, MonotonicClock, Pool, PoolConfig, Prng};

use crate::run::Latencies;

/// Looks at the clock after so many rounds of something that is short.
const BATCH: u32 = 64;

/// Bytes a second of something that is done to blocks.
fn rate(time: Duration, len: usize, mut work: impl FnMut()) -> f64 {
    let clock = MonotonicClock::start();
    let start = clock.now();
    let mut bytes = 0.0;
    loop {
        (0..BATCH).for_each(|_| work());
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let batch = len as f64 * f64::from(BATCH);
        bytes += batch;
        let spent = clock.now() - start;
        if spent >= time {
            return bytes / spent.as_secs_f64();
        }
    }
}

/// Bytes a second that are copied in blocks of `len` within `within` bytes: small ones stay in the cache.
pub fn memcpy(time: Duration, len: usize, within: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; within], vec![0_u8; within]);
    let mut at = 0;
    rate(time, len, || {
        to[at..at + len].copy_from_slice(black_box(&from[at..at + len]));
        black_box(&mut to[at]);
        at = if at + 2 * len <= within { at + len } else { 0 };
    })
}

/// Bytes a second of CRC32C over blocks of `len`, in the cache.
pub fn crc(time: Duration, len: usize) -> f64 {
    let block = vec![7_u8; len];
    rate(time, len, || {
        black_box(crc32c::crc32c(black_box(&block)));
    })
}

/// How an end of a ping-pong waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Asks again and again; lets others run only after many attempts in vain.
    Polling,
    /// Sleeps until there is something.
    Blocking,
}

/// Attempts in vain before others may run: more than a round trip, so that whoever yields has nobody to wait for, or no core.
const ATTEMPTS: u32 = 200;

/// Bytes to and fro of a ping-pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// From the side that measures.
    pub request: usize,
    /// Back.
    pub reply: usize,
}

/// Round trips over a TCP connection on loopback, one at a time, between two threads.
///
/// # Errors
/// The system's.
pub fn ping_pong(time: Duration, exchange: Exchange, waiting: Waiting) -> io::Result<Latencies> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = Pipe::new(TcpStream::connect(listener.local_addr()?)?, waiting)?;
    let mut far = Pipe::new(listener.accept()?.0, waiting)?;
    let answering = thread::spawn(move || -> io::Result<()> {
        let (mut request, reply) = (vec![0; exchange.request], vec![2; exchange.reply]);
        while far.receive(&mut request)? {
            far.send(&reply)?;
        }
        Ok(())
    });
    let (request, mut reply) = (vec![1; exchange.request], vec![0; exchange.reply]);
    let clock = MonotonicClock::start();
    let mut latencies = Latencies::new();
    let start = clock.now();
    let mut before = start;
    while before - start < time {
        near.send(&request)?;
        if !near.receive(&mut reply)? {
            break;
        }
        let after = clock.now();
        latencies.record(after - before);
        before = after;
    }
    drop(near);
    answering.join().map_err(|_| io::Error::other("the answering thread ended by a panic"))??;
    Ok(latencies)
}

struct Pipe {
    stream: TcpStream,
    /// Attempts in vain since the last that was not.
    in_vain: u32,
}

impl Pipe {
    fn new(stream: TcpStream, waiting: Waiting) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(waiting == Waiting::Polling)?;
        Ok(Self { stream, in_vain: 0 })
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => (bytes, self.in_vain) = (&bytes[count..], 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.rest(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.in_vain += 1;
        if self.in_vain >= ATTEMPTS {
            self.in_vain = 0;
            thread::yield_now();
        } else {
            core::hint::spin_loop();
        }
    }

    /// False when the other end has closed the connection.
    fn receive(&mut self, mut into: &mut [u8]) -> io::Result<bool> {
        while !into.is_empty() {
            match self.stream.read(into) {
                Ok(0) => return Ok(false),
                Ok(count) => (into, self.in_vain) = (&mut into[count..], 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.rest(),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Whether the page cache lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// No: `O_DIRECT`.
    Direct,
    /// Yes: the file system has no direct I/O.
    Cache,
}

/// What to do to a file, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `pread`.
    Read,
    /// `pwrite`, not flushed. DESTROYS what is there.
    Write,
}

/// Latencies of `len` bytes at random places of a file or block device.
///
/// # Errors
/// The system's, and a file that has no room for one operation.
pub fn file(path: &Path, access: Access, len: usize, time: Duration) -> io::Result<(Through, Latencies)> {
    let open =
        |flags| OpenOptions::new().read(true).write(access == Access::Write).custom_flags(flags).open(path);
    let (through, file) = match open(libc::O_DIRECT) {
        Ok(file) => (Through::Direct, file),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (Through::Cache, open(0)?),
        Err(error) => return Err(error),
    };
    let places = size(&file)? / len as u64;
    if len == 0 || len > BUF_LEN_MAX || places == 0 {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("no room for operations of {len} bytes"),
        ));
    }
    let pool = Pool::new(PoolConfig::with_memory(4 << 20)).map_err(io::Error::other)?;
    let mut frame = pool.alloc(len).ok_or_else(|| io::Error::other("no buffer"))?;
    let clock = MonotonicClock::start();
    let (mut prng, mut latencies) = (Prng::from_seed(1), Latencies::new());
    let start = clock.now();
    let mut before = start;
    while before - start < time {
        let at = prng.below(places) * len as u64;
        match access {
            Access::Read => file.read_exact_at(&mut frame, at)?,
            Access::Write => file.write_all_at(&frame, at)?,
        }
        let after = clock.now();
        latencies.record(after - before);
        before = after;
    }
    Ok((through, latencies))
}

/// A block device has no length in its inode: its end is.
fn size(mut file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut file, io::SeekFrom::End(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn everything_is_measured() {
        assert!(memcpy(SHORT, 4096, 1 << 20) > 0.0 && crc(SHORT, 4096) > 0.0);
        for waiting in [Waiting::Polling, Waiting::Blocking] {
            let exchange = Exchange { request: 48, reply: 48 + 4096 };
            let seen = ping_pong(SHORT, exchange, waiting).expect("loopback");
            assert!(seen.count() > 0, "{waiting:?}");
        }
    }

    #[test]
    fn a_file_is_read_and_written_in_its_bounds() {
        let scratch = tempfile::NamedTempFile::new().expect("a file");
        scratch.as_file().set_len(64 << 10).expect("a size");
        for access in [Access::Write, Access::Read] {
            let (_, seen) = file(scratch.path(), access, 4096, SHORT).expect("it is there");
            assert!(seen.count() > 0);
        }
        assert_eq!(scratch.as_file().metadata().expect("it is there").len(), 64 << 10);
        file(scratch.path(), Access::Read, 1 << 20, SHORT).expect_err("it is shorter");
    }
}
