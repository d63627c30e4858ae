#![expect(unsafe_code, reason = "reads the TSC, and what KVM writes about it")]
//! Time in cycles of the TSC.

/// What KVM tells of its clock (struct pvclock_vcpu_time_info).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct KvmClock {
    version: u32,
    padding: u32,
    tsc_timestamp: u64,
    system_time: u64,
    tsc_to_system_mul: u32,
    tsc_shift: i8,
    flags: u8,
    padding_end: [u8; 2],
}

/// Cycles since some point.
#[must_use]
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and nothing forbids it to ring 3 (CR4.TSD is clear).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Cycles a millisecond, if KVM tells.
#[must_use]
pub fn kilohertz() -> Option<u64> {
    let clock = kvm_clock()?;
    kilohertz_of(clock.tsc_to_system_mul, clock.tsc_shift)
}

#[cfg(not(test))]
fn kvm_clock() -> Option<KvmClock> {
    unsafe extern "C" {
        /// Reserved by the entry code, zeroed at first.
        static kvm_clock: KvmClock;
    }
    let clock = &raw const kvm_clock;
    // SAFETY: it is there for ever. KVM may write meanwhile; of the fields used here only once, at the start.
    Some(unsafe { clock.read_volatile() })
}

/// Tests run where there is no such clock.
#[cfg(test)]
fn kvm_clock() -> Option<KvmClock> {
    None
}

/// nanoseconds = (cycles << shift) * mul >> 32.
fn kilohertz_of(mul: u32, shift: i8) -> Option<u64> {
    const NANOSECONDS: u64 = 1_000_000;
    let cycles = (NANOSECONDS << 32).checked_div(u64::from(mul))?;
    let by = u32::from(shift.unsigned_abs());
    if shift < 0 {
        cycles.checked_shl(by)
    } else {
        cycles.checked_shr(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_tells_the_frequency() {
        // 2 GHz: half a nanosecond a cycle.
        assert_eq!(kilohertz_of(1 << 31, 0), Some(2_000_000));
        assert_eq!(kilohertz_of(1 << 30, 1), Some(2_000_000));
        assert_eq!(kilohertz_of(0xffff_ffff, -1), Some(2_000_000));
        assert_eq!(kilohertz_of(0, 0), None);
    }
}
