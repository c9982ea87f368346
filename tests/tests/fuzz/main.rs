//! Every fuzz target over its corpus and over mutations of it: the same ones in each run. `make fuzz` runs them for long, with
//! coverage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use engine::Prng;
use tests::fuzz::{TARGETS, run};

/// Mutations of each target's corpus.
const MUTATIONS: u32 = 4000;
/// Longest input in bytes.
const LEN_MAX: usize = 8192;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// Runs one input; says which it was when it fails.
fn try_input(name: &str, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(name, input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{name} fails on {hex}");
        std::panic::resume_unwind(panic);
    }
}

fn mutate(prng: &mut Prng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=prng.below(4) {
        let at = prng.below(input.len() as u64 + 1) as usize;
        let len = prng.below(16) as usize;
        match prng.below(7) {
            0 => input.insert(at, prng.below(256) as u8),
            1 => drop(input.drain(at..(at + len).min(input.len()))),
            2 => input.extend_from_within(at.saturating_sub(len)..at),
            3 => input.truncate(at),
            4 if !other.is_empty() => {
                let from = prng.below(other.len() as u64) as usize;
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][prng.below(5) as usize],
            _ if at < input.len() => input[at] ^= 1 << prng.below(8),
            _ => {}
        }
    }
    input.truncate(LEN_MAX);
}

#[test]
fn targets_hold_over_their_corpora_and_near_them() {
    for (number, (name, _)) in (0..).zip(TARGETS) {
        let corpus = corpus(name);
        assert!(corpus.len() >= 3, "{name} has a corpus of {}", corpus.len());
        corpus.iter().for_each(|input| try_input(name, input));
        let mut prng = Prng::from_seed(0x6765_6d65 + number);
        for _ in 0..MUTATIONS {
            let pick = |prng: &mut Prng| prng.below(corpus.len() as u64) as usize;
            let (from, other) = (pick(&mut prng), pick(&mut prng));
            let mut input = corpus[from].clone();
            mutate(&mut prng, &mut input, &corpus[other]);
            try_input(name, &input);
        }
    }
}
