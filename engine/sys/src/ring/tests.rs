use core::net::SocketAddr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use io_uring::opcode;

use super::flight::Flight;
use super::*;
use crate::file::{Access, File};
use crate::segment::Segment;
use crate::socket::Socket;

const MODES: [RingMode; 2] = [RingMode::Probe, RingMode::Plain];

fn ring(mode: RingMode) -> (RingHandle, Pool) {
    let pool = Pool::for_tests();
    let waker = Waker::new().expect("eventfd");
    (RingHandle::new(RingConfig { entries: 64, mode }, &pool, waker).expect("io_uring"), pool)
}

fn complete(ring: &RingHandle, client: &RingClient) -> Completion {
    for _ in 0..500 {
        ring.wait(Some(Duration::from_millis(10))).expect("wait");
        if let Some(completion) = client.take() {
            return completion;
        }
    }
    panic!("no completion in five seconds");
}

fn scratch(bytes: u64) -> (tempfile::NamedTempFile, File) {
    let temp = tempfile::NamedTempFile::new().expect("temporary file");
    temp.as_file().set_len(bytes).expect("size");
    let file = File::open(temp.path(), Access::ReadWrite, 4096).expect("open");
    (temp, file)
}

/// What the kernel reads of an entry: its opcode, and the flags of its write or sync.
fn opcode_and_flags(operation: Operation, arena: Option<&Pool>) -> (u8, i32) {
    /// Of `rw_flags` and `fsync_flags` in `struct io_uring_sqe`.
    const FLAGS: usize = 28;
    let entry = Flight::unwatched(operation).entry(arena, None);
    // SAFETY: an entry is a `struct io_uring_sqe`, 64 bytes of plain integers that `build` has set.
    let bytes: [u8; 64] = unsafe { core::mem::transmute_copy(&entry) };
    (bytes[0], i32::from_ne_bytes(bytes[FLAGS..FLAGS + 4].try_into().expect("four bytes")))
}

#[test]
fn a_durable_write_and_a_sync_tell_the_kernel_so() {
    let pool = Pool::for_tests();
    let (_temp, file) = scratch(1 << 20);
    let write = |mode| {
        let from = pool.alloc_zeroed(4096).expect("frame").freeze();
        Operation::Write { file: file.clone(), offset: 0, from, mode }
    };
    for (arena, opcode) in [(None, opcode::Write::CODE), (Some(&pool), opcode::WriteFixed::CODE)] {
        assert_eq!(opcode_and_flags(write(WriteMode::Accepted), arena), (opcode, 0));
        assert_eq!(opcode_and_flags(write(WriteMode::Durable), arena), (opcode, libc::RWF_DSYNC));
    }
    const DATASYNC: i32 = 1;
    let sync = Operation::Sync { file: file.clone() };
    assert_eq!(opcode_and_flags(sync, None), (opcode::Fsync::CODE, DATASYNC));
}

#[test]
fn what_is_written_is_read_in_every_mode() {
    for mode in MODES {
        let (ring, pool) = ring(mode);
        let client = ring.attach();
        let (_temp, file) = scratch(1 << 20);
        for write_mode in [WriteMode::Accepted, WriteMode::Durable] {
            let mut buf = pool.alloc(4096).expect("frame");
            buf.fill(0x5a);
            let write =
                Operation::Write { file: file.clone(), offset: 8192, from: buf.freeze(), mode: write_mode };
            client.submit(1, write).expect("room");
            assert_eq!(complete(&ring, &client).result.expect("written"), 4096);
        }
        client.submit(2, Operation::Sync { file: file.clone() }).expect("room");
        complete(&ring, &client).result.expect("synced");
        let into = pool.alloc_zeroed(4096).expect("frame");
        client.submit(3, Operation::Read { file: file.clone(), offset: 8192, into }).expect("room");
        let completion = complete(&ring, &client);
        assert_eq!((completion.token, completion.result.expect("read")), (3, 4096));
        let Operation::Read { into, .. } = completion.operation else { panic!("another operation") };
        assert!(into.iter().all(|byte| *byte == 0x5a));
    }
}

#[test]
fn a_punched_range_reads_as_zeroes() {
    let (ring, pool) = ring(RingMode::Probe);
    let client = ring.attach();
    let (temp, file) = scratch(0);
    temp.as_file().write_all(&[9; 16384]).expect("fill");
    let punch = Operation::Range { file: file.clone(), offset: 4096, len: 4096, mode: RangeMode::PunchHole };
    client.submit(0, punch).expect("room");
    complete(&ring, &client).result.expect("punched");
    client
        .submit(0, Operation::Read { file, offset: 4096, into: pool.alloc(4096).expect("frame") })
        .expect("room");
    let Operation::Read { into, .. } = complete(&ring, &client).operation else {
        panic!("another operation")
    };
    assert!(into.iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_is_locked_against_a_second_open() {
    let (temp, _file) = scratch(4096);
    let error = File::open(temp.path(), Access::ReadWrite, 4096).expect_err("locked");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
}

#[test]
fn accept_receive_and_send_over_loopback() {
    for mode in MODES {
        let (ring, pool) = ring(mode);
        let client = ring.attach();
        let listener = Socket::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("listen");
        let address = listener.local_addr().expect("address");
        client.submit(1, Operation::Accept { socket: listener }).expect("room");
        let mut other = TcpStream::connect(address).expect("connect");
        let socket = complete(&ring, &client).accepted.expect("accepted");
        other.write_all(b"hello").expect("write");
        let into = pool.alloc(64).expect("frame");
        client.submit(2, Operation::Receive { socket: socket.clone(), into }).expect("room");
        let completion = complete(&ring, &client);
        assert_eq!(completion.result.expect("received"), 5);
        let mut buf = pool.alloc(4).expect("frame");
        buf.copy_from_slice(b"orld");
        let segments = vec![Segment::inline(b"xxw"), Segment::Frame(buf.freeze())];
        client.submit(3, Operation::Send { socket, segments, skip: 2 }).expect("room");
        assert_eq!(complete(&ring, &client).result.expect("sent"), 5);
        let mut got = [0; 5];
        other.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"world");
    }
}

#[test]
fn connect_reaches_a_listener_and_reports_a_refusal() {
    let (ring, _pool) = ring(RingMode::Probe);
    let client = ring.attach();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let connect = |address| {
        let socket = Socket::unconnected(address).expect("socket");
        client.submit(0, Operation::Connect { socket, address }).expect("room");
        complete(&ring, &client).result
    };
    connect(address).expect("connected");
    drop(listener);
    assert_eq!(connect(address).expect_err("refused").raw_os_error(), Some(libc::ECONNREFUSED));
}

#[test]
fn a_cancelled_receive_completes_and_gives_its_buffer_back() {
    let (ring, pool) = ring(RingMode::Probe);
    let client = ring.attach();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let socket = Socket::unconnected(address).expect("socket");
    client.submit(0, Operation::Connect { socket: socket.clone(), address }).expect("room");
    complete(&ring, &client).result.expect("connected");
    client.submit(7, Operation::Receive { socket, into: pool.alloc(64).expect("frame") }).expect("room");
    ring.turn().expect("turn");
    client.cancel(7);
    let completion = complete(&ring, &client);
    assert_eq!(completion.result.expect_err("cancelled").raw_os_error(), Some(libc::ECANCELED));
}

#[test]
fn dropping_client_and_ring_with_operations_in_flight_frees_every_buffer() {
    let (ring, pool) = ring(RingMode::Probe);
    let before = pool.stats();
    let client = ring.attach();
    let listener = Socket::listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("listen");
    let address = listener.local_addr().expect("address");
    let _other = TcpStream::connect(address).expect("connect");
    client.submit(0, Operation::Accept { socket: listener }).expect("room");
    let socket = complete(&ring, &client).accepted.expect("accepted");
    client.submit(1, Operation::Receive { socket, into: pool.alloc(64).expect("frame") }).expect("room");
    ring.turn().expect("turn");
    drop(client);
    drop(ring);
    assert_eq!(pool.stats().map(|class| class.free), before.map(|class| class.free));
}

#[test]
fn a_full_ring_gives_the_operation_back() {
    let (ring, pool) = ring(RingMode::Probe);
    let client = ring.attach();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let socket = Socket::unconnected(address).expect("socket");
    client.submit(0, Operation::Connect { socket: socket.clone(), address }).expect("room");
    complete(&ring, &client).result.expect("connected");
    let receive = || Operation::Receive { socket: socket.clone(), into: pool.alloc(64).expect("frame") };
    for _ in 0..64 {
        client.submit(1, receive()).expect("room");
    }
    assert!(client.submit(1, receive()).is_err());
}

#[test]
fn a_sleeping_ring_is_woken_every_time() {
    let (ring, _pool) = ring(RingMode::Probe);
    let waker = ring.waker();
    let messages = std::sync::Arc::new(core::sync::atomic::AtomicU32::new(0));
    let sender = std::thread::spawn({
        let messages = messages.clone();
        move || {
            for _ in 0..2_000 {
                let sent = messages.fetch_add(1, core::sync::atomic::Ordering::SeqCst) + 1;
                waker.wake();
                while messages.load(core::sync::atomic::Ordering::SeqCst) == sent {
                    std::thread::yield_now();
                }
            }
        }
    });
    // The receiver takes each message by resetting the count.
    let mut seen = 0;
    while seen < 2_000 {
        ring.waker().announce_sleep();
        if messages.load(core::sync::atomic::Ordering::SeqCst) == 0 {
            // Without a wake-up this would last ten seconds and the test would never end in time.
            ring.wait(Some(Duration::from_secs(10))).expect("wait");
        }
        ring.waker().announce_awake();
        if messages.swap(0, core::sync::atomic::Ordering::SeqCst) != 0 {
            seen += 1;
        }
    }
    sender.join().expect("sender");
}

/// A reactor that sleeps until it has seen `count` messages; each is taken by resetting the number.
fn sleeper(messages: std::sync::Arc<core::sync::atomic::AtomicU32>, count: u32) -> (Waker, JoinHandle<()>) {
    use core::sync::atomic::Ordering::SeqCst;
    let waker = Waker::new().expect("eventfd");
    let inside = waker.clone();
    let (made, is_made) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let pool = Pool::for_tests();
        let ring = RingHandle::new(RingConfig::default(), &pool, inside).expect("io_uring");
        made.send(()).expect("the test waits");
        let mut seen = 0;
        while seen < count {
            ring.waker().announce_sleep();
            if messages.load(SeqCst) == 0 {
                let woken = ring.wait(Some(Duration::from_secs(10))).expect("wait");
                assert!(woken > 0, "a wake-up was lost");
            }
            ring.waker().announce_awake();
            seen += u32::from(messages.swap(0, SeqCst) != 0);
        }
    });
    is_made.recv().expect("a ring");
    (waker, thread)
}

#[test]
fn a_ring_wakes_another_every_time() {
    use core::sync::atomic::Ordering::SeqCst;
    for mode in MODES {
        let (ring, _pool) = ring(mode);
        let messages = std::sync::Arc::new(core::sync::atomic::AtomicU32::new(0));
        let (waker, thread) = sleeper(messages.clone(), 2_000);
        for _ in 0..2_000 {
            messages.store(1, SeqCst);
            ring.wake(&waker);
            while messages.load(SeqCst) != 0 && !thread.is_finished() {
                ring.turn().expect("turn");
            }
        }
        thread.join().expect("no panic");
        while ring.in_flight() > 0 {
            ring.turn().expect("turn");
        }
        // The sleeper is gone: its waker may be used and leads nowhere.
        waker.announce_sleep();
        ring.wake(&waker);
        ring.turn().expect("turn");
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn registered_descriptors_serve_and_their_places_come_back() {
    let (ring, pool) = ring(RingMode::Probe);
    if !ring.capabilities().fixed_files {
        eprintln!("skipped: this kernel has no registered files");
        return;
    }
    let client = ring.attach();
    // More files over time than the table has places.
    for round in 0..1500_u64 {
        let (temp, file) = scratch(8192);
        let first = ring.register_file(&file).expect("room");
        let second = ring.register_file(&file).expect("the same place");
        drop(first);
        let mut from = pool.alloc(4096).expect("frame");
        from[..8].copy_from_slice(&round.to_le_bytes());
        let write = Operation::Write {
            file: file.clone(),
            offset: 4096,
            from: from.freeze(),
            mode: WriteMode::Accepted,
        };
        client.submit(round, write).expect("room");
        let completion = complete(&ring, &client);
        assert_eq!(completion.result.expect("written"), 4096);
        drop((completion.operation, second));
        let into = pool.alloc_zeroed(4096).expect("frame");
        client.submit(round, Operation::Read { file: file.clone(), offset: 4096, into }).expect("room");
        let Operation::Read { into, .. } = complete(&ring, &client).operation else {
            panic!("another operation")
        };
        assert_eq!(into[..8], round.to_le_bytes());
        // Nothing keeps the file: its lock can be had again.
        drop(file);
        File::open(temp.path(), Access::ReadWrite, 4096).expect("closed");
    }
}

/// Both ends of a connection: ours for the ring, the other one to look at.
fn connection() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (other, _) = listener.accept().expect("accept");
    (Socket::from_fd(ours.into()), other)
}

/// The place of a connection that is over is given to the next one only when no entry that names it is still to be handed over.
#[test]
fn what_was_queued_for_one_connection_is_not_done_on_the_next() {
    let (ring, pool) = ring(RingMode::Probe);
    if !ring.capabilities().fixed_files {
        eprintln!("skipped: this kernel has no registered files");
        return;
    }
    let ((old, mut old_other), (new, mut new_other)) = (connection(), connection());
    let registered = ring.register_socket(&old).expect("room");
    let client = ring.attach();
    let segments = vec![Segment::inline(b"for the old one")];
    client.submit(1, Operation::Send { socket: old.clone(), segments, skip: 0 }).expect("room");
    let into = pool.alloc(64).expect("frame");
    client.submit(2, Operation::Receive { socket: old.clone(), into }).expect("room");
    drop((client, registered, old));
    let _registered = ring.register_socket(&new).expect("room");
    new_other.write_all(b"for the new one").expect("sent");
    ring.turn().expect("turn");
    let client = ring.attach();
    let into = pool.alloc(64).expect("frame");
    client.submit(3, Operation::Receive { socket: new, into }).expect("room");
    let completion = complete(&ring, &client);
    assert_eq!(completion.result.expect("received"), 15, "nobody else took it");
    new_other.set_nonblocking(true).expect("a socket");
    let nothing = new_other.read(&mut [0; 64]).expect_err("nothing was sent to the new one");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    let mut sent = [0; 15];
    old_other.read_exact(&mut sent).expect("what was queued has left");
    assert_eq!(&sent, b"for the old one");
}
