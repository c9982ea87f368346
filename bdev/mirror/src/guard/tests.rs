//! What the guard lets through, and when a fence is granted.

use bdev::{BlockRange, Completed, Durability, FenceKey, Geometry, Io, IoError, Op, Tag};
use engine::{Instant, Pool, PoolConfig};

use super::*;
use crate::format::LegIndex;
use crate::format::tests::example_create;

const LEG: Geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 1 << 20 };
const FIRST: ClientId = ClientId(1);
const SECOND: ClientId = ClientId(2);

/// The guard of leg 0; its peer is node 1.
struct Bench {
    guard: Guard,
    desk: Desk,
    replies: Replies,
    data: u64,
}

impl Bench {
    fn new() -> Self {
        let superblock = example_create(LegIndex::Zero).founder(1);
        let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
        let mut desk = Desk::new(pool, LEG, Duration::from_secs(1));
        desk.now = Instant::EPOCH + Duration::from_secs(1);
        let data = superblock.layout.data_offset / 512;
        Self {
            guard: Guard::new(512, &superblock, Duration::from_millis(1500)),
            desk,
            replies: Replies::new(),
            data,
        }
    }

    fn io(&mut self, client: ClientId, op: Op) {
        let io = Io::new(op, Tag(client.0), self.desk.now);
        self.guard.on_io(client, io, &mut self.desk, &mut self.replies);
    }

    fn fence(&mut self, client: ClientId, node: u8, generation: u64) {
        self.io(client, Op::Fence { key: FenceKey { node, generation } });
    }

    fn raise(&mut self, generation: u64) {
        self.guard.raise(FenceKey { node: 0, generation }, self.desk.now, &mut self.replies);
    }

    fn write(&mut self, client: ClientId) {
        let from = self.desk.frame(512).expect("a frame").freeze();
        let range = BlockRange::new(self.data, 1);
        self.io(client, Op::Write { range, from, durability: Durability::Durable });
    }

    fn read(&mut self, client: ClientId, lba: u64) {
        let into = self.desk.frame(512).expect("a frame");
        self.io(client, Op::Read { range: BlockRange::new(lba, 1), into });
    }

    /// Stores the fence and grants it, as the node does.
    fn let_in(&mut self) {
        if let FenceStep::Raising(key) = self.guard.fence_step() {
            self.guard.on_stored(key);
        }
        assert_eq!(self.guard.fence_step(), FenceStep::Granting);
        self.guard.grant(self.desk.now, &mut self.replies);
    }

    /// The oldest answer.
    fn answer(&mut self) -> Result<(), IoError> {
        self.replies.pop_front().expect("an answer").1.result
    }

    /// Whether the last I/O reached the leg; it is taken away from there.
    fn reached(&mut self) -> Option<Io> {
        self.desk.next_out().map(|(_, io)| io)
    }

    fn finish(&mut self, io: Io) {
        self.end(io, Ok(()));
    }

    fn end(&mut self, io: Io, result: Result<(), IoError>) {
        let completed: Completed = io.complete(result, self.desk.now);
        let (_, purpose, completed) = self.desk.settle(completed);
        let Purpose::Guarded { client, tag } = purpose else { panic!("{purpose:?}") };
        self.guard.on_done(client, tag, completed, self.desk.now, &mut self.replies);
        assert_eq!(self.answer(), result);
    }
}

/// A holder takes the answer for a lease, also when it says that the block is bad; and it may come long after the turn in which
/// the read was taken.
#[test]
fn a_heartbeat_whose_block_is_bad_grants_all_the_same() {
    for result in [Ok(()), Err(IoError::Medium { lba: 0 })] {
        let mut bench = Bench::new();
        bench.fence(FIRST, 1, 5);
        bench.let_in();
        assert_eq!(bench.answer(), Ok(()));
        bench.read(FIRST, bench.data);
        let heartbeat = bench.reached().expect("the holder reads");
        bench.desk.now += Duration::from_secs(5);
        bench.end(heartbeat, result);
        assert_eq!(bench.guard.last_granted(), Some(bench.desk.now), "{result:?}");
    }
}

#[test]
fn a_session_that_is_not_fenced_reads_metadata_and_nothing_else() {
    let mut bench = Bench::new();
    bench.read(FIRST, 128);
    let io = bench.reached().expect("metadata are open to all");
    bench.finish(io);
    for lba in [bench.data, bench.data + 100] {
        bench.read(FIRST, lba);
        assert_eq!(bench.answer(), Err(IoError::Fenced));
    }
    bench.write(FIRST);
    assert_eq!(bench.answer(), Err(IoError::Fenced));
    assert!(bench.reached().is_none());
}

#[test]
fn a_fence_waits_for_what_was_submitted_before_it() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 1, 5);
    bench.let_in();
    assert_eq!(bench.answer(), Ok(()));
    bench.write(FIRST);
    let slow = bench.reached().expect("the holder writes");
    bench.fence(SECOND, 1, 6);
    assert_eq!(bench.guard.fence_step(), FenceStep::Raising(FenceKey { node: 1, generation: 6 }));
    bench.guard.on_stored(FenceKey { node: 1, generation: 6 });
    assert_eq!(bench.guard.fence_step(), FenceStep::Waiting, "the old write cannot be recalled");
    bench.finish(slow);
    bench.let_in();
    assert_eq!(bench.answer(), Ok(()));
    bench.write(FIRST);
    assert_eq!(bench.answer(), Err(IoError::Fenced));
}

/// The holder came back on a new session, in the same generation; what the old one has on the wire comes late.
#[test]
fn only_the_newest_session_of_a_generation_writes() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 1, 5);
    bench.let_in();
    bench.fence(SECOND, 1, 5);
    bench.write(FIRST);
    bench.let_in();
    bench.write(FIRST);
    let answers: Vec<_> = bench.replies.drain(..).map(|(client, done)| (client, done.result)).collect();
    let refused = (FIRST, Err(IoError::Fenced));
    assert_eq!(answers, [(FIRST, Ok(())), refused, (SECOND, Ok(())), refused]);
    assert!(bench.reached().is_none(), "nothing late reaches the leg");
    bench.write(SECOND);
    assert!(bench.reached().map(|io| bench.finish(io)).is_some());
}

/// Every session has a superblock of its own number, so that an older copy of the leg is told from it.
#[test]
fn a_fence_that_says_nothing_new_is_stored_all_the_same() {
    let mut bench = Bench::new();
    let key = FenceKey { node: 1, generation: 5 };
    for client in [FIRST, SECOND, SECOND] {
        bench.fence(client, 1, 5);
        assert_eq!(bench.guard.fence_step(), FenceStep::Raising(key));
        bench.let_in();
        assert_eq!(bench.answer(), Ok(()));
        assert_eq!(bench.guard.fence_step(), FenceStep::Idle);
    }
}

#[test]
fn only_the_peer_fences_and_generations_do_not_fall() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 0, 9);
    assert_eq!(bench.answer(), Err(IoError::Fenced), "our own number from outside");
    bench.fence(FIRST, 1, 9);
    bench.let_in();
    assert_eq!(bench.answer(), Ok(()));
    bench.fence(SECOND, 1, 8);
    assert_eq!(bench.answer(), Err(IoError::Fenced));
    bench.raise(10);
    bench.write(FIRST);
    assert_eq!(bench.answer(), Err(IoError::Fenced), "this node took over");
    bench.fence(FIRST, 1, 10);
    assert_eq!(bench.answer(), Err(IoError::Fenced), "a generation belongs to who came first");
}

/// A fence that was under way when this node took a newer generation has come too late: it falls.
#[test]
fn a_fence_under_way_is_refused_when_this_node_goes_on() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 1, 9);
    bench.fence(SECOND, 1, 10);
    bench.raise(10);
    assert_eq!(bench.answer(), Err(IoError::Fenced));
    assert_eq!(bench.answer(), Err(IoError::Fenced));
    assert_eq!(bench.guard.fence_step(), FenceStep::Idle);
    bench.fence(FIRST, 1, 11);
    bench.raise(10);
    assert_eq!(bench.guard.fence_step(), FenceStep::Raising(FenceKey { node: 1, generation: 11 }));
    bench.let_in();
    assert_eq!(bench.answer(), Ok(()));
}

#[test]
fn a_fence_that_cannot_be_stored_is_refused_and_may_be_asked_again() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 1, 5);
    bench.fence(SECOND, 1, 6);
    bench.guard.give_up(IoError::Os(5), bench.desk.now, &mut bench.replies);
    assert_eq!(bench.answer(), Err(IoError::Os(5)));
    assert_eq!(bench.guard.fence_step(), FenceStep::Raising(FenceKey { node: 1, generation: 6 }));
    bench.let_in();
    assert_eq!(bench.answer(), Ok(()));
    bench.write(SECOND);
    assert!(bench.reached().map(|io| bench.finish(io)).is_some());
}

#[test]
fn a_stop_answers_every_fence_that_waits() {
    let mut bench = Bench::new();
    bench.fence(FIRST, 1, 5);
    bench.fence(SECOND, 1, 6);
    bench.guard.close(bench.desk.now, &mut bench.replies);
    let not_ready = Err(IoError::NotReady(NotReady::Starting));
    assert_eq!((bench.answer(), bench.answer()), (not_ready, not_ready));
}
