//! An import with two ways to its target: both are used, and a cut of one is a pause, not an end.

mod import;

use std::collections::BTreeSet;
use std::time::Duration;

use bdev::fault::FaultTarget;
use bdev::{BlockRange, Channel, Completions, Durability, Io, Link, Op, Tag};
use engine::Buf;
use gateway::{Remote, RemoteConfig, Served, Way, WayNews, WayState};
use import::{HOST, Homes, World, config, ip, ip_there};
use uuid::Uuid;

const MS: Duration = Duration::from_millis(1);

/// An import of the target's LUN by host 3.
struct Bench {
    world: World,
    import: Served,
    user: Box<dyn Channel>,
    done: Completions,
    next: u64,
}

fn two_ways() -> RemoteConfig {
    let mut two = config("10.0.0.1:3260");
    two.add_way("10.0.1.1:3260".parse().expect("address"));
    two
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self::with(seed, two_ways())
    }

    fn with(seed: u64, remote: RemoteConfig) -> Self {
        let world = World::new(seed, config("10.0.0.1:3260"), &[HOST]);
        let remote = Remote::new("r3", Uuid::from_u128(3), remote);
        let (bdev, import) = Served::over(&remote, Box::new(Homes::new(&world.network, 3)), &world.core);
        let user = bdev::Bdev::open(bdev, &world.core).expect("opens");
        let mut bench = Self { world, import, user, done: Completions::new(), next: 0 };
        bench.until("two ways", Duration::from_secs(2), |bench| bench.states() == [WayState::Up; 2]);
        assert!(matches!(bench.import.take_way_news().make_contiguous(), [WayNews::Back(_)]));
        bench
    }

    fn step(&mut self) {
        self.world.step();
        let _ = self.import.poll(self.world.now);
        let _ = self.user.poll(self.world.now, &mut self.done);
    }

    fn until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut(&mut Self) -> bool) -> Duration {
        let begin = self.world.now;
        while !ready(self) {
            self.step();
            assert!(self.world.now - begin < limit, "{what}: {:?} {:?}", self.import.ways(), self.session());
        }
        self.world.now - begin
    }

    fn states(&self) -> [WayState; 2] {
        let ways: [Way; 2] = self.import.ways().try_into().expect("two");
        ways.map(|way| way.state)
    }

    fn session(&self) -> Link {
        self.user.link(self.world.now)
    }

    fn frame(&self, len: usize) -> Buf {
        let mut frame = self.world.core.pool().alloc(len).expect("a frame");
        frame.fill(7);
        frame.freeze()
    }

    fn submit(&mut self, from: &Buf) {
        let blocks = (from.len() / 512) as u32;
        let range = BlockRange::new(self.next % 32 * u64::from(blocks), blocks);
        let write = Op::Write { range, from: from.clone(), durability: Durability::Durable };
        self.next += 1;
        let (tag, now) = (Tag(self.next), self.world.now);
        self.user.submit(Io::new(write, tag, now), now).expect("room");
    }

    /// Eight short writes at a time for so long; the longest that nothing was answered.
    fn write_for(&mut self, time: Duration) -> Duration {
        let from = self.frame(4096);
        self.keep_writing(8, &from, time)
    }

    /// The same of so many writes at a time.
    fn keep_writing(&mut self, depth: usize, from: &Buf, time: Duration) -> Duration {
        let until = self.world.now + time;
        let (mut under_way, mut last, mut longest) = (0, self.world.now, Duration::ZERO);
        while self.world.now < until || under_way > 0 {
            while under_way < depth && self.world.now < until {
                self.submit(from);
                under_way += 1;
            }
            self.step();
            while let Some(completed) = self.done.pop_front() {
                assert_eq!(
                    completed.result,
                    Ok(()),
                    "{:?} {:?}",
                    self.import.take_way_news(),
                    self.session()
                );
                longest = longest.max(self.world.now - last);
                (under_way, last) = (under_way - 1, self.world.now);
            }
            assert!(self.world.now - last < Duration::from_secs(3), "stands: {:?}", self.import.ways());
        }
        longest
    }

    fn cut(&self, way: usize) {
        let host = [ip, ip_there][way];
        self.world.network.partition(host(1), host(3));
    }

    fn heal(&self, way: usize) {
        let host = [ip, ip_there][way];
        self.world.network.heal(host(1), host(3));
    }

    fn sessions(&self) -> BTreeSet<u16> {
        self.world.target.connections().iter().map(|one| one.tsih).collect()
    }
}

#[test]
fn both_ways_are_used() {
    let mut bench = Bench::new(31);
    bench.world.fault.plan().set_latency(FaultTarget::Write, 2 * MS);
    let from = bench.frame(4096);
    (0..16).for_each(|_| bench.submit(&from));
    let busy = |bench: &mut Bench| bench.import.ways().iter().all(|way| way.tasks == 8);
    bench.until("eight on each", 2 * MS, busy);
    bench.until("the answers", 100 * MS, |bench| bench.done.len() == 16);
}

/// The session, and with it what the target knows of the initiator, is the same one all the time.
#[test]
fn a_cut_of_either_way_is_a_short_pause() {
    for seed in 0..4 {
        let mut bench = Bench::new(seed);
        let sessions = bench.sessions();
        bench.world.fault.plan().set_latency(FaultTarget::Write, MS / 5);
        bench.write_for(20 * MS);
        for way in [0, 1, 0] {
            bench.cut(way);
            let longest = bench.write_for(400 * MS);
            assert!(longest > 50 * MS && longest <= 250 * MS, "seed {seed}, way {way}: {longest:?}");
            assert_eq!(bench.states()[way], WayState::Down);
            let news = bench.import.take_way_news();
            assert!(matches!(&news[0], WayNews::Lost(_, why) if why.contains("silent")), "{news:?}");
            bench.heal(way);
            bench.until("both again", Duration::from_secs(3), |bench| bench.states() == [WayState::Up; 2]);
            assert!(matches!(bench.import.take_way_news()[0], WayNews::Back(_)));
            assert!(bench.write_for(20 * MS) < 20 * MS);
        }
        assert_eq!(bench.sessions(), sessions);
    }
}

/// What waits for the commands that were lost is more than the target keeps: it hears the other way all the same.
#[test]
fn a_cut_under_load_is_a_short_pause_too() {
    for way in [0, 1] {
        let mut bench = Bench::new(50);
        let sessions = bench.sessions();
        bench.world.fault.plan().set_latency(FaultTarget::Write, MS);
        let from = bench.frame(256 << 10);
        bench.keep_writing(64, &from, 20 * MS);
        (0..64).for_each(|_| bench.submit(&from));
        (0..20).for_each(|_| bench.step());
        bench.cut(way);
        bench.until("the answers", Duration::from_secs(2), |bench| bench.done.len() == 64);
        assert!(bench.done.drain(..).all(|completed| completed.result == Ok(())), "way {way}");
        assert_eq!(bench.sessions(), sessions, "way {way}");
        bench.heal(way);
        bench.until("both again", Duration::from_secs(3), |bench| bench.states() == [WayState::Up; 2]);
        bench.cut(way);
        let longest = bench.keep_writing(64, &from, 400 * MS);
        assert!(longest > 50 * MS && longest <= 300 * MS, "way {way}: {longest:?}");
        assert_eq!(bench.sessions(), sessions, "way {way}");
    }
}

/// Nothing has its turn before a command that was lost: it is not sent for the target to keep. What was lost and had its turn holds up nothing.
#[test]
fn commands_wait_here_while_the_target_waits_for_a_lost_one() {
    for lost in [1, 0] {
        let mut slow = two_ways();
        slow.preferences.default_time2wait = 2;
        let mut bench = Bench::with(52, slow);
        let from = bench.frame(4096);
        bench.cut(1);
        (0..2 * lost).for_each(|_| bench.submit(&from));
        bench.until("the cut", Duration::from_secs(1), |bench| bench.states()[1] == WayState::Down);
        let cut = bench.world.now;
        (0..8).for_each(|_| bench.submit(&from));
        bench.until("half a second", Duration::from_secs(1), |bench| bench.world.now - cut > 500 * MS);
        assert_eq!((bench.import.ways()[0].tasks, bench.done.len()), if lost == 1 { (0, 1) } else { (0, 8) });
        bench.until("the answers", Duration::from_secs(2), |bench| bench.done.len() == 8 + 2 * lost);
    }
}

/// The target lets the lost commands go on later than a new connection is tried for the first time.
#[test]
fn a_way_is_used_again_however_long_its_commands_wait() {
    let mut slow = two_ways();
    slow.preferences.default_time2wait = 2;
    let mut bench = Bench::with(51, slow);
    bench.cut(1);
    bench.until("the cut", Duration::from_secs(1), |bench| bench.states()[1] == WayState::Down);
    bench.heal(1);
    bench.until("both again", Duration::from_secs(5), |bench| bench.states() == [WayState::Up; 2]);
}

/// A way that has so much to carry that a ping takes longer than a cut is not cut.
#[test]
fn a_slow_way_is_not_taken_for_one_that_is_cut() {
    let mut bench = Bench::new(12);
    for (from, to) in [(1, 3), (3, 1)] {
        bench.world.network.slow_down(ip_there(from), ip_there(to), 40 * MS);
    }
    bench.until("pings on the slow way", Duration::from_secs(1), |bench| {
        bench.import.ways()[1].round_trip.is_some_and(|took| took > 70 * MS)
    });
    let from = bench.world.core.pool().alloc_zeroed(64 << 10).expect("a frame").freeze();
    for _ in 0..64 {
        let (range, from) = (BlockRange::new(0, 128), from.clone());
        let write = Op::Write { range, from, durability: Durability::Accepted };
        let now = bench.world.now;
        bench.user.submit(Io::new(write, Tag(1), now), now).expect("room");
    }
    let took = bench.until("the answers", Duration::from_secs(3), |bench| bench.done.len() == 64);
    assert!(took > 200 * MS, "{took:?}: not slow");
    assert_eq!((bench.states(), bench.import.take_way_news().len()), ([WayState::Up; 2], 0));
}

/// Answers that came before a cut are not acknowledged after it: the target keeps them for Time2Retain, and no longer.
#[test]
fn what_a_lost_connection_leaves_is_forgotten_in_time() {
    let mut brief = two_ways();
    brief.preferences.default_time2retain = 1;
    let mut bench = Bench::with(9, brief);
    bench.write_for(20 * MS);
    bench.cut(0);
    let cut = bench.world.now;
    bench.write_for(400 * MS);
    let at_work = |bench: &Bench| bench.world.target.luns()[0].active;
    bench.until("nothing at work", Duration::from_secs(2), |bench| at_work(bench) == 0);
    assert!(bench.world.now - cut > Duration::from_secs(1), "it was kept for the other connection");
}

/// One that says nothing on either way is dead after its silence, and not before: nothing is taken from way to way meanwhile.
#[test]
fn a_target_that_stands_still_is_silent_and_no_way_is_lost() {
    let mut bench = Bench::new(40);
    [ip(1), ip_there(1)].into_iter().for_each(|host| bench.world.network.freeze(host));
    let frozen = bench.world.now;
    bench.until("most of the silence", Duration::from_secs(1), |bench| bench.world.now - frozen > 900 * MS);
    assert_eq!((bench.states(), bench.import.take_way_news().len()), ([WayState::Up; 2], 0));
    bench.until("silence", 200 * MS, |bench| !bench.session().is_up());
    [ip(1), ip_there(1)].into_iter().for_each(|host| bench.world.network.thaw(host));
    bench.until("two ways", Duration::from_secs(5), |bench| bench.states() == [WayState::Up; 2]);
}

#[test]
fn a_session_begins_on_whichever_way_there_is() {
    let mut bench = Bench::new(41);
    [0, 1].into_iter().for_each(|way| bench.cut(way));
    bench.until("silence", Duration::from_secs(2), |bench| !bench.session().is_up());
    bench.heal(1);
    let took = bench.until("a session", Duration::from_secs(4), |bench| bench.session().is_up());
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_ne!(bench.states()[0], WayState::Up);
    bench.heal(0);
    bench.until("two ways", Duration::from_secs(4), |bench| bench.states() == [WayState::Up; 2]);
    assert!(bench.write_for(20 * MS) < 20 * MS);
}
