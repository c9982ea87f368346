//! A process that has no descriptors left. It is the only test of its binary: the others would have none either.

use core::time::Duration;
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;

use engine_sys::{Operation, Pool, RingConfig, RingHandle, Socket, Waker};

#[test]
fn a_connection_ends_where_there_are_no_descriptors_left() {
    let pool = Pool::for_tests();
    let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("eventfd"));
    let ring = ring.expect("io_uring");
    let client = ring.attach();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let socket = Socket::unconnected(address).expect("a socket");
    client.submit(0, Operation::Connect { socket: socket.clone(), address }).expect("room");
    while client.take().is_none() {
        ring.wait(Some(Duration::from_millis(10))).expect("wait");
    }
    let (mut other, _) = listener.accept().expect("accept");
    let limit = libc::rlimit { rlim_cur: 32, rlim_max: 32 };
    // SAFETY: the pointer is to a limit, which the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    socket.shutdown();
    other.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    assert_eq!(other.read(&mut [0; 1]).expect("the end, and no time-out"), 0);
}
