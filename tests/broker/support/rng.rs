//! Reproducible random choices: the seed is printed and can be given.

use std::time::Duration;

use super::clock;

pub struct Rng(u64);

impl Rng {
    /// From `KLADDER_TEST_SEED`, otherwise from the time.
    pub fn seeded(test: &str) -> Self {
        let given = std::env::var("KLADDER_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| u64::try_from(clock::epoch_millis()).unwrap_or(1)).max(1);
        println!("{test}: random choices repeat with KLADDER_TEST_SEED={seed}");
        Self(seed)
    }

    /// xorshift64*: sufficient for choosing moments.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}
