//! The names that are asked for, and how their numbers are drawn.
//!
//! A name is `host00001234.records01.bench.`, thirty bytes on the wire: its number, and how many A records it has. Any
//! number has an answer, so that warm names and never-seen ones differ in nothing else.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of every name on the wire.
pub const NAME_BYTES: usize = 30;

/// What a question looks like besides its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub edns: bool,
    pub records: u8,
}

impl Shape {
    /// What stub resolvers of these days send, and the least that answers them.
    pub const USUAL: Self = Self { edns: true, records: 1 };

    /// The question for number 0, with id 0.
    pub fn question(self) -> Vec<u8> {
        let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns)];
        packet.extend_from_slice(b"\x0chost00000000\x09records");
        packet.extend_from_slice(format!("{:02}", self.records).as_bytes());
        packet.extend_from_slice(b"\x05bench\0\0\x01\0\x01");
        if self.edns {
            packet.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        }
        packet
    }
}

/// Writes `number` into a [`Shape::question`].
pub fn set_number(question: &mut [u8], number: u32) {
    let mut rest = number;
    for digit in question[DIGITS].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// `number` as dnsperf reads it.
pub fn text(number: u32, shape: Shape) -> String {
    format!("host{number:08}.records{:02}.bench.", shape.records)
}

/// The numbers of the names, one after the other.
pub enum Names {
    /// Drawn beforehand, so that drawing costs nothing while it is measured; begins anew at the end.
    Drawn { draws: Vec<u32>, at: usize },
    /// Each once.
    Each { next: u32, end: u32 },
}

impl Names {
    /// All of `count` alike.
    pub fn uniform(count: u32) -> Self {
        let mut random = StdRng::seed_from_u64(u64::from(count));
        Self::Drawn { draws: (0..DRAWS).map(|_| random.random_range(0..count)).collect(), at: 0 }
    }

    /// By Zipf's law with exponent 1.
    pub fn zipf(count: u32) -> Self {
        let mut random = StdRng::seed_from_u64(u64::from(count));
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=count)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect();
        let draw = |_| {
            let at = random.random::<f64>() * sum;
            sums.partition_point(|s| *s < at) as u32
        };
        Self::Drawn { draws: (0..DRAWS).map(draw).collect(), at: 0 }
    }

    /// Those from `first` on, never one twice.
    pub fn new(first: u32) -> Self {
        Self::Each { next: first, end: NUMBERS }
    }

    pub fn next(&mut self) -> Option<u32> {
        match self {
            Self::Drawn { draws, at } => {
                *at = if *at + 1 == draws.len() { 0 } else { *at + 1 };
                Some(draws[*at])
            }
            Self::Each { next, end } if *next < *end => {
                *next += 1;
                Some(*next - 1)
            }
            Self::Each { .. } => None,
        }
    }
}

/// Where the digits of the number stand in a question.
const DIGITS: std::ops::Range<usize> = 17..25;
/// Eight digits.
const NUMBERS: u32 = 100_000_000;
/// More than a round asks.
const DRAWS: usize = 1 << 20;
