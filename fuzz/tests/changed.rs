//! A short run in every `cargo test`: inputs of the corpora, changed at random, through their targets. `make fuzz` goes on
//! from there, guided by coverage and with the address sanitizer.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    panic,
    path::Path,
};

/// Inputs for each target: seconds for all of them.
const INPUTS: usize = 2000;
/// Bytes of the longest one, as for `make fuzz`.
const LONGEST: usize = 4096;
/// The seed of a run that is to be repeated.
const SEED: &str = "RINGWIRE_FUZZ_SEED";

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `count`, which is not 0.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).expect("less than count")
    }

    /// A part of `bytes`, from somewhere to somewhere.
    fn part<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.below(bytes.len() + 1);
        let rest = &bytes[start..];
        &rest[..self.below(rest.len() + 1)]
    }
}

/// Changes `input` in one place; `other` is another one of the corpus.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let byte = random.next().to_le_bytes()[0];
    match random.below(6) {
        0 => input.insert(at, byte),
        1 if at < input.len() => drop(input.remove(at)),
        2 if at < input.len() => input[at] ^= 1 << random.below(8),
        3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, byte][random.below(6)],
        4 => input.truncate(at),
        5 => drop(input.splice(at..at, random.part(other).iter().copied())),
        _ => {}
    }
    input.truncate(LONGEST);
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(directory)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // The same seed is to mean the same inputs everywhere.
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("an input"))
        .collect()
}

#[test]
fn changed_inputs_hold() {
    let given = std::env::var(SEED).ok();
    let seed = given.map_or_else(
        || RandomState::new().hash_one(0),
        |text| text.parse().expect("a number"),
    );
    let mut random = Random(seed | 1);
    for (name, run) in fuzz::TARGETS {
        let inputs = corpus(name);
        for number in 0..INPUTS {
            let mut input = inputs[random.below(inputs.len())].clone();
            for _ in 0..=random.below(8) {
                let other = &inputs[random.below(inputs.len())];
                change(&mut input, other, &mut random);
            }
            if let Err(what) = panic::catch_unwind(|| run(&input)) {
                eprintln!("{name}, input {number} of {SEED}={seed}: {input:02x?}");
                panic::resume_unwind(what);
            }
        }
    }
}
