//! Random numbers that a seed repeats (xorshift64*, Vigna 2016).

#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u32, stream: u64) -> Self {
        let mut random = Self((u64::from(seed) << 16 | stream) ^ 0x9e37_79b9_7f4a_7c15);
        // The first ones still resemble their seed.
        (0..8).for_each(|_| _ = random.next());
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// `0..end`
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }

    /// Once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
