//! The pace against a server that does one thing after the other, as a link does, and hosts that find before them what it has to do.

use engine::Prng;

use super::*;

const TICK: Duration = Duration::from_micros(10);

/// Requests a second of the hosts, and how long one takes that finds nothing before it.
#[derive(Clone, Copy)]
struct Load {
    rate: u64,
    base: Duration,
}

const NOBODY: Load = Load { rate: 0, base: Duration::ZERO };
const STEADY: Load = Load { rate: 2000, base: Duration::from_micros(100) };

/// A copy came to its end.
fn over(pace: &mut Pace, bytes: u64, began: Instant, now: Instant) {
    pace.on_copied(bytes, now - began);
    pace.on_copy_over(bytes, now);
}

struct World {
    pace: Pace,
    now: Instant,
    /// Bytes a second of the server.
    speed: u64,
    free_at: Instant,
    /// Ends, beginnings and bytes of copies under way.
    copies: Vec<(Instant, Instant, u64)>,
    /// Ends and beginnings of requests under way.
    requests: Vec<(Instant, Instant)>,
    latencies: Vec<Duration>,
    copied: u64,
    most_under_way: u64,
    prng: Prng,
}

impl World {
    fn new(speed: u64) -> Self {
        let now = Instant::EPOCH + Duration::from_secs(1);
        Self {
            pace: Pace::default(),
            now,
            speed,
            free_at: now,
            copies: Vec::new(),
            requests: Vec::new(),
            latencies: Vec::new(),
            copied: 0,
            most_under_way: 0,
            prng: Prng::from_seed(7),
        }
    }

    fn end_what_is_due(&mut self) {
        let now = self.now;
        for &(_, began, bytes) in self.copies.iter().filter(|copy| copy.0 <= now) {
            over(&mut self.pace, bytes, began, now);
            self.copied += bytes;
        }
        self.copies.retain(|copy| copy.0 > now);
        for &(_, began) in self.requests.iter().filter(|request| request.0 <= now) {
            self.pace.on_request(began, now);
            self.latencies.push(now - began);
        }
        self.requests.retain(|request| request.0 > now);
    }

    fn copy(&mut self, largest: u64) {
        while self.copies.len() < 64
            && let Some(most) = self.pace.next_copy(self.now)
        {
            let bytes = most.min(largest);
            self.free_at = self.free_at.max(self.now) + time_of(bytes, self.speed);
            self.copies.push((self.free_at, self.now, bytes));
            self.pace.on_copy(bytes, self.now);
            self.most_under_way = self.most_under_way.max(self.copies.iter().map(|copy| copy.2).sum());
        }
    }

    /// Runs so long; copies are of `largest` bytes at the most, zero for none.
    fn run(&mut self, millis: u64, load: Load, largest: u64) {
        (self.copied, self.most_under_way) = (0, 0);
        self.latencies.clear();
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now += TICK;
            self.end_what_is_due();
            let asked = if self.requests.is_empty() { Asked::Nothing } else { Asked::Something };
            self.pace.on_time(asked, self.now);
            if load.rate != 0 && self.prng.below(100_000 / load.rate) == 0 {
                // One in fifty takes twice as long.
                let own = if self.prng.below(50) == 0 { load.base * 2 } else { load.base };
                self.requests.push((self.free_at.max(self.now) + own, self.now));
            }
            if largest != 0 {
                self.copy(largest);
            }
        }
    }

    fn tail(&mut self) -> Duration {
        self.latencies.sort_unstable();
        self.latencies[self.latencies.len() * 99 / 100]
    }
}

#[test]
fn with_nobody_to_protect_a_copy_is_as_fast_as_the_server_from_the_start() {
    for largest in [COPY_MAX, COPY_MIN] {
        let mut world = World::new(2 << 30);
        world.run(100, NOBODY, largest);
        assert!(world.copied > (2 << 30) / 10 * 9 / 10, "{}", world.copied);
        assert!(world.most_under_way >= UNDER_WAY_MAX - COPY_MAX, "{}", world.most_under_way);
    }
}

#[test]
fn hosts_keep_their_tail_and_the_copy_most_of_the_server() {
    let mut world = World::new(1 << 30);
    world.run(2000, STEADY, 0);
    let before = world.tail();
    world.run(3000, STEADY, COPY_MAX);
    assert!(world.tail() <= before * 3 / 2 + Duration::from_micros(100), "{:?}, {before:?}", world.tail());
    assert!(world.copied > (3 << 30) / 2, "{}", world.copied);
    assert!(world.most_under_way <= 256 << 10, "{}", world.most_under_way);
}

#[test]
fn hosts_that_suffer_slow_the_copy_down_to_the_floor_and_no_further() {
    let mut world = World::new(1 << 30);
    world.run(1000, STEADY, 0);
    // A server on which a copy is in everybody's way for long.
    world.speed = 64 << 20;
    world.run(2000, STEADY, COPY_MAX);
    world.run(1000, STEADY, COPY_MAX);
    assert!((FLOOR / 10 * 9..FLOOR * 2).contains(&world.copied), "{}", world.copied);
}

#[test]
fn it_is_the_tail_that_counts() {
    let mut pace = Pace::default();
    let mut now = Instant::EPOCH + Duration::from_secs(1);
    let mut answer = |pace: &mut Pace, micros: u64| {
        let queued = now;
        now += Duration::from_micros(micros);
        pace.on_request(queued, now);
        pace.on_time(Asked::Nothing, now);
    };
    (0..1000).for_each(|_| answer(&mut pace, 100));
    pace.on_copy(COPY_MIN, Instant::EPOCH + Duration::from_millis(1100));
    let before = pace.rate;
    // One in thirty of five times the usual: the mean is up by an eighth.
    (0..300).for_each(|n| answer(&mut pace, if n % 30 == 0 { 500 } else { 100 }));
    assert!(pace.rate < before, "{}", pace.rate);
}

#[test]
fn a_fall_goes_from_what_was_copied() {
    let mut world = World::new(128 << 20);
    world.run(1000, STEADY, 0);
    world.pace.rate = 4 << 30;
    world.run(300, STEADY, COPY_MAX);
    world.pace.fall();
    assert!(world.pace.rate < 128 << 20, "{}", world.pace.rate);
}

#[test]
fn copies_are_spread_and_what_was_not_copied_is_not_made_up_for() {
    let mut world = World::new(4 << 30);
    world.run(1000, STEADY, COPY_MAX);
    // The operator pauses the resync, and lets it go on.
    world.run(500, STEADY, 0);
    let rate = world.pace.rate;
    for _ in 0..5 {
        world.run(2, STEADY, COPY_MAX);
        let most = bytes_in(Duration::from_millis(3), rate) + 2 * COPY_MIN;
        assert!(world.copied <= most, "{} of {most}", world.copied);
    }
}

#[test]
fn a_passing_quiet_changes_nothing_and_a_long_one_sets_the_copy_free() {
    let mut world = World::new(1 << 30);
    world.run(1000, STEADY, COPY_MAX);
    world.run(900, NOBODY, COPY_MAX);
    assert!(world.most_under_way <= 256 << 10, "{}", world.most_under_way);
    world.run(200, NOBODY, COPY_MAX);
    assert!(world.most_under_way > COPY_MAX, "{}", world.most_under_way);
    // Whoever comes now finds small copies behind those that are there.
    world.run(10, STEADY, COPY_MAX);
    world.run(100, STEADY, COPY_MAX);
    assert!(world.most_under_way <= 256 << 10, "{}", world.most_under_way);
}

#[test]
fn hosts_that_change_what_they_do_are_not_taken_for_hosts_that_suffer() {
    let mut world = World::new(1 << 30);
    world.run(1000, STEADY, COPY_MAX);
    let slower = Load { rate: 2000, base: Duration::from_millis(2) };
    world.run(20_000, slower, COPY_MAX);
    world.run(1000, slower, COPY_MAX);
    assert!(world.copied > 256 << 20, "{}", world.copied);
}

/// What is copied in so many seconds where each copy takes so long, however many there are, and each request of hosts so long.
fn copied_over(pace: &mut Pace, seconds: u32, copy: impl Fn(u32) -> Duration, request: Duration) -> u64 {
    let mut now = Instant::EPOCH + Duration::from_secs(1);
    let (mut copies, mut copied, mut began) = (Vec::new(), 0, 0);
    for tick in 0..seconds * 100_000 {
        now += TICK;
        copies.retain(|&(began, takes)| {
            let ended = now - began >= takes;
            if ended {
                over(pace, COPY_MIN, began, now);
                copied += COPY_MIN;
            }
            !ended
        });
        if tick % 50 == 0 {
            pace.on_request(Instant::from(now.since_epoch() - request), now);
        }
        pace.on_time(Asked::Nothing, now);
        while pace.next_copy(now).is_some() {
            copies.push((now, copy(began)));
            began += 1;
            pace.on_copy(COPY_MIN, now);
        }
    }
    copied
}

#[test]
fn a_long_way_gets_what_it_holds_under_way() {
    let mut pace = Pace::default();
    // One that found no frame says nothing of the way.
    let start = Instant::EPOCH + Duration::from_secs(1);
    pace.on_copy(COPY_MIN, start);
    pace.on_copy_over(COPY_MIN, start);
    let copied = copied_over(&mut pace, 2, |_| Duration::from_millis(5), Duration::ZERO);
    assert!(copied > 2 * (200 << 20), "{copied}");
}

/// Disks that are slow, and hosts that suffer all the time: there is an end all the same (I13).
#[test]
fn the_lowest_rate_is_copied_however_long_a_copy_takes() {
    let mut pace = Pace::default();
    // Requests are late all the time, as the usual ones were known to be quick.
    let began = Instant::EPOCH + Duration::from_millis(500);
    (0..200).for_each(|_| pace.on_request(began, began));
    pace.calm = Calm::Was { from: began, until: began };
    let copy = |number: u32| Duration::from_millis(if number.is_multiple_of(100) { 1 } else { 80 });
    let copied = copied_over(&mut pace, 20, copy, Duration::from_millis(300));
    assert!(copied >= 20 * FLOOR * 8 / 10, "{} MiB", copied >> 20);
    assert!(copied <= 20 * FLOOR * 3, "{} MiB", copied >> 20);
}

/// Requests that are not answered are requests.
#[test]
fn hosts_that_wait_are_at_work() {
    let mut pace = Pace::default();
    let start = Instant::EPOCH + Duration::from_secs(1);
    pace.on_request(start, start);
    for second in 1..5 {
        pace.on_time(Asked::Something, start + Duration::from_secs(second));
    }
    assert_eq!(pace.next_copy(start + Duration::from_secs(5)), Some(COPY_MIN));
    pace.on_time(Asked::Nothing, start + Duration::from_secs(6));
    assert_eq!(pace.next_copy(start + Duration::from_secs(6)), Some(COPY_MAX));
}
