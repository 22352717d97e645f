//! Hints to the processor that memory will soon be read.
//!
//! Where the processor is not known there is no hint, and nothing changes but the time that a look takes.

#![allow(unsafe_code)]

/// Bytes that come together.
const LINE: usize = 64;

/// Has the line fetched in which a value begins.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    hint(std::ptr::from_ref(value).cast());
}

/// Has all lines of a value fetched.
#[inline]
pub fn prefetch_all<T: ?Sized>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for offset in (0..size_of_val(value)).step_by(LINE) {
        hint(start.wrapping_add(offset));
    }
    if let Some(last) = size_of_val(value).checked_sub(1) {
        hint(start.wrapping_add(last));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn hint(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, whatever the address: it neither reads in the sense of the memory model nor faults. SSE, which
    // has it, is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn hint(_at: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_may_be_hinted_at() {
        prefetch(&7u8);
        prefetch_all(&[0u8; 1000]);
        prefetch_all::<[u64]>(&[]);
    }
}
