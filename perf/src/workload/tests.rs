//! Shares, places and refusals of the generator.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ONE: Stream = Stream { index: 0, count: 1 };
const DEVICE: (u64, u32) = (1 << 30, 512);

fn workload(mix: &str, sizes: &str, pattern: &str) -> Workload {
    Workload {
        mix: mix.parse().expect("a mix"),
        sizes: sizes.parse().expect("sizes"),
        pattern: pattern.parse().expect("a pattern"),
        span: None,
    }
}

fn generator(workload: &Workload, seed: u64) -> Generator {
    Generator::new(workload, DEVICE, ONE, seed).expect("it fits")
}

#[test]
fn shares_of_kinds_and_sizes_are_what_was_asked_for() {
    let mut stream = generator(&workload("read:70,write:20,trim:8,flush:2", "4k:70,64k:30", "random"), 7);
    let mut kinds = BTreeMap::new();
    let mut long = 0;
    let count = 100_000;
    for _ in 0..count {
        let request = stream.next_request();
        *kinds.entry(request.kind).or_insert(0_u32) += 1;
        long += u32::from(request.len == 65_536);
        match request.kind {
            Kind::Flush => assert_eq!((request.offset, request.len), (0, 0)),
            _ => assert!(
                request.offset + u64::from(request.len) <= DEVICE.0 && request.offset.is_multiple_of(4096)
            ),
        }
    }
    for (kind, percent) in [(Kind::Read, 70), (Kind::Write, 20), (Kind::Trim, 8), (Kind::Flush, 2)] {
        let share = kinds[&kind].abs_diff(count * percent / 100);
        assert!(share < count / 200, "{kind}: {} of {count}", kinds[&kind]);
    }
    let transfers = count - kinds[&Kind::Flush];
    assert!(long.abs_diff(transfers * 3 / 10) < count / 200, "{long} of {transfers} are long");
}

#[test]
fn the_seed_and_the_stream_decide_everything() {
    let workload = workload("read:50,write:50", "4k", "zipf:0.9");
    let take = |stream: Stream, seed| {
        let mut generator = Generator::new(&workload, DEVICE, stream, seed).expect("it fits");
        (0..100).map(|_| generator.next_request()).collect::<Vec<_>>()
    };
    assert_eq!(take(ONE, 3), take(ONE, 3));
    assert_ne!(take(ONE, 3), take(ONE, 4));
    assert_ne!(take(Stream { index: 0, count: 2 }, 3), take(Stream { index: 1, count: 2 }, 3));
}

#[test]
fn sequential_streams_share_the_span_and_begin_again_at_its_end() {
    let workload = Workload { span: Some("64k".parse().expect("a size")), ..workload("read", "16k", "seq") };
    let offsets = |index| {
        let mut stream = Generator::new(&workload, DEVICE, Stream { index, count: 2 }, 1).expect("it fits");
        (0..5).map(|_| stream.next_request().offset >> 14).collect::<Vec<_>>()
    };
    assert_eq!((offsets(0), offsets(1)), (vec![0, 1, 2, 3, 0], vec![2, 3, 0, 1, 2]));
}

#[test]
fn random_places_reach_the_whole_span_and_nothing_else() {
    let workload =
        Workload { span: Some("64k".parse().expect("a size")), ..workload("write", "4k,8k", "random") };
    let mut stream = generator(&workload, 11);
    let mut seen = BTreeSet::new();
    for _ in 0..2_000 {
        let request = stream.next_request();
        assert!(request.offset + u64::from(request.len) <= 65_536);
        seen.insert(request.offset / 4096);
    }
    assert_eq!(seen.len(), 16);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |sizes: &str, span: Option<&str>, device| {
        let span = span.map(|span| span.parse().expect("a size"));
        Generator::new(&Workload { span, ..workload("read", sizes, "random") }, device, ONE, 1)
            .expect_err("it does not fit")
    };
    assert_eq!(refused("1000", None, DEVICE), WorkloadError::Unaligned { size: 1000, block_size: 512 });
    assert_eq!(refused("4k,6k", None, DEVICE), WorkloadError::Mixed { size: 6144, smallest: 4096 });
    assert_eq!(
        refused("2m", None, DEVICE),
        WorkloadError::TooLong { size: 2 << 20, max: engine::BUF_LEN_MAX }
    );
    assert_eq!(
        refused("4k", Some("2m"), (1 << 20, 512)),
        WorkloadError::SpanTooLong { capacity: 1 << 20, span: 2 << 20 }
    );
    assert_eq!(refused("8k", Some("4k"), DEVICE), WorkloadError::SpanTooShort { span: 4096, size: 8192 });
}
