//! I/Os that have no answer in their time, at a target that answers pings: aborted, then the LUN is reset, then the session ends.

mod fake;

use std::collections::VecDeque;
use std::time::Duration;

use bdev::{Bdev as _, BlockRange, Channel, Completed, Completions, Durability, Io, IoError, Op, Tag};
use engine::{Core, Instant, Pool};
use fake::{ABORT_TASK, Asked, Fake, LOGICAL_UNIT_RESET, Reply};
use gateway::{Remote, RemoteConfig, Rung, RungTimes, Served};
use iscsi::keys::Choice;
use net::sim::{SimConfig, SimNet};
use uuid::Uuid;

const IO_TIMEOUT: Duration = Duration::from_millis(200);
const TASK_ABORTED: u8 = 0x40;
const TIMES: RungTimes = RungTimes { abort: Duration::from_millis(60), reset: Duration::from_millis(90) };

struct World {
    core: Core,
    network: SimNet,
    now: Instant,
    fake: Fake,
    import: Served,
    users: Box<dyn Channel>,
    done: Completions,
    rungs: VecDeque<Rung>,
}

impl World {
    fn new(adjust: impl FnOnce(&mut RemoteConfig)) -> Self {
        let core = Core::for_tests(Pool::for_tests());
        let network = SimNet::new(SimConfig::default());
        let portal = "10.0.0.1:3260".parse().expect("address");
        let fake = Fake::new(&network.host([10, 0, 0, 1].into()), portal);
        let mut config = RemoteConfig::new("iqn.2026-11.example:h0", "iqn.2026-11.example:t0", portal);
        (config.io_timeout, config.rung_times) = (IO_TIMEOUT, TIMES);
        adjust(&mut config);
        let remote = Remote::new("r0", Uuid::nil(), config);
        let network_of_host = Box::new(network.host([10, 0, 0, 2].into()));
        let (bdev, import) = Served::over(&remote, network_of_host, &core);
        let users = bdev.open(&core).expect("a ring");
        let now = Instant::from_nanos(1_000_000_000);
        let (done, rungs) = (Completions::new(), VecDeque::new());
        let mut world = Self { core, network, now, fake, import, users, done, rungs };
        world.up();
        world
    }

    fn up(&mut self) {
        self.step();
        assert!(self.until(Duration::from_secs(3), |world| world.users.link(world.now).is_up()));
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(50);
        let _ = self.network.advance(self.now);
        let _ = self.import.poll(self.now);
        let _ = self.users.poll(self.now, &mut self.done);
        self.fake.poll(self.now);
        self.rungs.append(&mut self.import.take_rungs());
    }

    fn until(&mut self, limit: Duration, ready: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + limit;
        while self.now < until && !ready(self) {
            self.step();
        }
        ready(self)
    }

    fn session(&self) -> usize {
        self.fake.logins
    }

    fn read(&mut self, lba: u64) {
        self.submit(lba, None);
    }

    /// A read, or a write of these bytes, of a block; the block's number is the tag.
    fn submit(&mut self, lba: u64, fill: Option<u8>) {
        let range = BlockRange::new(lba, 1);
        let mut buf = self.core.pool().alloc(512).expect("a frame");
        buf.fill(fill.unwrap_or(0xee));
        let op = match fill {
            None => Op::Read { range, into: buf },
            Some(_) => Op::Write { range, from: buf.freeze(), durability: Durability::Accepted },
        };
        self.users.submit(Io::new(op, Tag(lba), self.now), self.now).expect("room");
    }

    /// A COMPARE AND WRITE of a block, which vanishes.
    fn compare_and_write(&mut self, lba: u64) {
        self.fake.swallow(lba);
        let both = self.core.pool().alloc_zeroed(1024).expect("a frame").freeze();
        let range = BlockRange::new(lba, 1);
        let op = Op::CompareAndWrite { range, both, durability: Durability::Accepted };
        self.users.submit(Io::new(op, Tag(lba), self.now), self.now).expect("room");
    }

    /// The next completion, and how long it took.
    fn ended(&mut self, limit: Duration) -> (Completed, Duration) {
        let before = self.now;
        assert!(self.until(limit, |world| !world.done.is_empty()), "no end within {limit:?}");
        (self.done.pop_front().expect("one"), self.now - before)
    }

    fn told(&mut self) -> Vec<Rung> {
        self.rungs.drain(..).collect()
    }

    fn asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.fake.asked)
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn an_abort_that_is_answered_ends_the_io_and_nothing_else() {
    for reply in [Reply::Complete, Reply::NoTask] {
        for fill in [None, Some(5)] {
            let mut world = World::new(|_| {});
            world.fake.swallow(7);
            world.fake.replies = [(ABORT_TASK, reply)].into();
            world.submit(7, fill);
            world.read(8);
            let (other, _) = world.ended(millis(100));
            assert_eq!((other.tag, other.result), (Tag(8), Ok(())));
            let (late, took) = world.ended(millis(400));
            assert_eq!((late.tag, late.result), (Tag(7), Err(IoError::TimedOut)));
            assert!(took < IO_TIMEOUT + millis(20), "{took:?}");
            assert_eq!(world.asked(), [Asked { function: ABORT_TASK, names_the_task: true }]);
            assert_eq!(world.told(), [Rung::AbortTask]);
            world.read(7);
            assert_eq!(world.ended(millis(100)).0.result, Ok(()), "the session goes on");
            assert_eq!(world.session(), 1);
        }
    }
}

#[test]
fn a_buffer_is_its_owners_again_when_the_target_says_so_and_not_before() {
    let mut world = World::new(|_| {});
    world.fake.swallow(7);
    world.fake.replies = [(ABORT_TASK, Reply::Later(millis(40)))].into();
    world.read(7);
    assert!(
        !world.until(IO_TIMEOUT + millis(30), |world| !world.done.is_empty()),
        "it may still be written to"
    );
    let (late, took) = world.ended(millis(100));
    assert_eq!(late.result, Err(IoError::TimedOut));
    assert!(took > millis(5), "{took:?}");
    let Op::Read { into, .. } = late.op else { panic!("a read") };
    assert!(into.iter().all(|byte| *byte == 0xee), "nothing came");
    // Data and a status that come behind the answer, or stayed on their way, touch nothing and end nothing.
    world.fake.answer_swallowed();
    world.read(8);
    assert_eq!(world.ended(millis(100)).0.result, Ok(()));
    assert!(into.iter().all(|byte| *byte == 0xee), "nothing came late");
    world.until(millis(50), |_| false);
    assert_eq!((world.session(), world.done.len()), (1, 0));
}

/// The target may wait for data that it has asked for before it says that the task is over.
#[test]
fn data_are_sent_as_long_as_an_abort_is_not_answered() {
    let mut world = World::new(|config| {
        config.preferences.immediate_data = Choice::No;
        config.preferences.initial_r2t = Choice::Yes;
    });
    world.fake.swallow(7);
    world.fake.replies = [(ABORT_TASK, Reply::Later(millis(40)))].into();
    world.submit(7, Some(6));
    assert!(world.until(IO_TIMEOUT + millis(10), |world| !world.fake.asked.is_empty()));
    assert_eq!(world.fake.data_of_swallowed(), Vec::<u8>::new());
    world.fake.ask_for_swallowed();
    assert!(world.until(millis(30), |world| world.fake.data_of_swallowed() == [6; 512]), "they are answered");
    assert!(world.done.is_empty(), "its buffer is not free before the target says so");
    assert_eq!(world.ended(millis(60)).0.result, Err(IoError::TimedOut));
    assert_eq!(world.session(), 1);
}

#[test]
fn an_answer_that_overtakes_its_abort_is_the_answer() {
    let mut world = World::new(|_| {});
    world.fake.swallow(7);
    world.fake.replies = [(ABORT_TASK, Reply::AfterTheTask)].into();
    world.read(7);
    let (late, _) = world.ended(IO_TIMEOUT + millis(50));
    assert_eq!(late.result, Ok(()));
    world.until(millis(300), |_| false);
    assert_eq!((world.told(), world.session()), (vec![Rung::AbortTask], 1), "it leads no further");
}

#[test]
fn an_abort_that_does_not_help_is_followed_by_a_reset() {
    for (reply, waits) in [(Reply::Refused, false), (Reply::Silence, true)] {
        let mut world = World::new(|_| {});
        world.fake.swallow(7);
        world.fake.swallow(9);
        world.fake.replies = [(ABORT_TASK, reply), (LOGICAL_UNIT_RESET, Reply::Complete)].into();
        world.read(7);
        world.until(IO_TIMEOUT / 2, |_| false);
        // Not late, and swept away with the others.
        world.submit(9, Some(1));
        let (late, took) = world.ended(millis(400));
        let rungs = if waits { TIMES.abort } else { Duration::ZERO };
        assert_eq!((late.tag, late.result), (Tag(7), Err(IoError::TimedOut)));
        let bound = IO_TIMEOUT / 2 + rungs;
        assert!(took >= bound && took < bound + millis(20), "{took:?}");
        let (other, _) = world.ended(millis(20));
        assert_eq!((other.tag, other.result), (Tag(9), Ok(())), "sent again");
        assert!(world.fake.written(9) == [1; 512], "with its data");
        let functions: Vec<u8> = world.asked().iter().map(|asked| asked.function).collect();
        assert_eq!(functions, [ABORT_TASK, LOGICAL_UNIT_RESET]);
        assert_eq!(world.told(), [Rung::AbortTask, Rung::LogicalUnitReset]);
        world.submit(9, Some(2));
        assert_eq!(world.ended(millis(100)).0.result, Ok(()), "the session goes on");
        assert_eq!(world.session(), 1);
    }
}

/// What a reset swept away is not sent again and again: it has the time that it had.
#[test]
fn what_is_sent_again_is_late_when_it_would_have_been() {
    let mut world = World::new(|_| {});
    world.fake.swallow(7);
    world.fake.swallow(9);
    world.fake.replies = [(ABORT_TASK, Reply::Refused), (LOGICAL_UNIT_RESET, Reply::Complete)].into();
    world.read(7);
    world.until(IO_TIMEOUT / 2, |_| false);
    world.read(9);
    world.compare_and_write(11);
    let sent = world.now;
    assert_eq!(world.ended(IO_TIMEOUT).0.tag, Tag(7));
    world.fake.swallow(9);
    // It may have been carried out, and would find its own data.
    let (other, _) = world.ended(millis(20));
    assert_eq!((other.tag, other.result), (Tag(11), Err(IoError::Aborted)));
    let (late, _) = world.ended(IO_TIMEOUT);
    assert_eq!((late.tag, late.result), (Tag(9), Err(IoError::TimedOut)));
    let took = world.now - sent;
    assert!(took >= IO_TIMEOUT && took < IO_TIMEOUT + millis(20), "{took:?}");
    assert_eq!(world.session(), 1);
}

#[test]
fn what_another_initiator_aborts_is_sent_again() {
    let mut world = World::new(|_| {});
    world.fake.swallow(7);
    world.submit(7, Some(3));
    world.compare_and_write(9);
    assert!(world.until(millis(50), |world| world.fake.commands >= 3), "both, and the capacity");
    world.fake.end_swallowed(TASK_ABORTED);
    let results = [world.ended(millis(50)).0, world.ended(millis(50)).0];
    let mut results = results.map(|completed| (completed.tag, completed.result));
    results.sort_by_key(|(tag, _)| tag.0);
    assert_eq!(results, [(Tag(7), Ok(())), (Tag(9), Err(IoError::Aborted))]);
    assert!(world.fake.written(7) == [3; 512], "with its data");
    assert_eq!(world.session(), 1);
}

#[test]
fn nothing_is_sent_while_a_reset_is_on_its_way() {
    let mut world = World::new(|_| {});
    world.fake.swallow(7);
    world.fake.replies =
        [(ABORT_TASK, Reply::Refused), (LOGICAL_UNIT_RESET, Reply::Later(millis(50)))].into();
    world.read(7);
    assert!(world.until(millis(300), |world| world.fake.asked.len() == 2));
    let before = world.fake.commands;
    world.read(8);
    world.until(millis(30), |_| false);
    assert_eq!((world.fake.commands, world.done.len()), (before, 0));
    assert_eq!(world.ended(millis(100)).0.result, Err(IoError::TimedOut));
    assert_eq!(world.ended(millis(100)).0.result, Ok(()));
    assert_eq!(world.session(), 1);
}

#[test]
fn a_target_that_answers_neither_loses_the_session_in_time() {
    for reply in [Reply::Refused, Reply::Silence] {
        let mut world = World::new(|_| {});
        world.fake.swallow(7);
        world.fake.swallow(9);
        world.fake.replies = [(ABORT_TASK, Reply::Silence), (LOGICAL_UNIT_RESET, reply)].into();
        world.read(7);
        world.read(9);
        let bound =
            IO_TIMEOUT + TIMES.abort + if reply == Reply::Silence { TIMES.reset } else { Duration::ZERO };
        let (late, took) = world.ended(bound + millis(50));
        assert_eq!(late.result, Err(IoError::TimedOut));
        assert!(took >= bound && took < bound + millis(20), "{took:?}, bound {bound:?}");
        assert_eq!(world.ended(millis(10)).0.result, Err(IoError::TimedOut));
        let told = world.told();
        assert_eq!(told, [Rung::AbortTask, Rung::AbortTask, Rung::LogicalUnitReset, Rung::SessionDrop]);
        world.up();
        world.read(8);
        assert_eq!(world.ended(millis(100)).0.result, Ok(()));
        assert_eq!(world.session(), 2, "another session");
    }
}

/// As a mirror's are: who waits for them has to know by then, and nothing is tried first.
#[test]
fn an_io_with_a_deadline_of_its_own_ends_the_session_at_once() {
    let core = Core::for_tests(Pool::for_tests());
    let network = SimNet::new(SimConfig::default());
    let portal = "10.0.0.1:3260".parse().expect("address");
    let mut fake = Fake::new(&network.host([10, 0, 0, 1].into()), portal);
    let mut config = RemoteConfig::new("iqn.2026-11.example:h0", "iqn.2026-11.example:t0", portal);
    config.rung_times = TIMES;
    let remote = Remote::new("r0", Uuid::nil(), config);
    let mut channel = remote.open_over(&core, Box::new(network.host([10, 0, 0, 2].into())));
    let (mut now, mut done) = (Instant::from_nanos(1_000_000_000), Completions::new());
    let mut step = |channel: &mut Box<dyn Channel>, done: &mut Completions| {
        now += Duration::from_micros(50);
        let _ = network.advance(now);
        let _ = channel.poll(now, done);
        fake.poll(now);
        fake.swallow(7);
        (now, fake.asked.len())
    };
    let mut at = step(&mut channel, &mut done).0;
    while !channel.link(at).is_up() {
        at = step(&mut channel, &mut done).0;
    }
    let into = core.pool().alloc(512).expect("a frame");
    let deadline = at + millis(30);
    let io = Io::new(Op::Read { range: BlockRange::new(7, 1), into }, Tag(7), at).with_deadline(deadline);
    channel.submit(io, at).expect("room");
    let mut asked = 0;
    while done.is_empty() {
        (at, asked) = step(&mut channel, &mut done);
        assert!(at <= deadline + millis(1), "it is kept");
    }
    assert_eq!((done.pop_front().expect("one").result, asked), (Err(IoError::TimedOut), 0));
    assert!(!channel.link(at).is_up());
}

#[test]
fn aborts_help_at_every_recovery_level() {
    for level in 0..=2 {
        let mut world = World::new(|config| config.offer_recovery(level));
        world.fake.swallow(7);
        world.fake.replies = [(ABORT_TASK, Reply::Complete)].into();
        for round in 0..3 {
            world.fake.swallow(7);
            world.read(7);
            assert_eq!(world.ended(millis(400)).0.result, Err(IoError::TimedOut), "level {level}");
            world.submit(8, Some(round));
            assert_eq!(world.ended(millis(100)).0.result, Ok(()), "level {level}");
        }
        assert_eq!(world.session(), 1);
    }
}
