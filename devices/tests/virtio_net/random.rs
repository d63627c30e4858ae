//! Rings full of random numbers: whatever the driver writes, the host's side stays sound.

use devices::testing::{Descriptor, register, status};

use crate::guest::*;

/// A generator of numbers that are the same in every run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of these, so that interesting values are not one in 2^64.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.next() % from.len() as u64;
        from[usize::try_from(at).unwrap()]
    }

    fn below(&mut self, end: u16) -> u16 {
        u16::try_from(self.next() % u64::from(end)).unwrap()
    }

    fn descriptor(&mut self, table: u64) -> Descriptor {
        let wild = self.next();
        let near = 0x10_0000 + self.next() % 0x1000;
        Descriptor {
            address: self.pick(&[near, near, near, near, table, wild, 0, u64::MAX - 8]),
            len: self.pick(&[0, 1, 12, 64, 64, 1514, 4096, 0x100_0000, u32::MAX]),
            // Mostly NEXT and WRITE, sometimes INDIRECT, seldom what does not exist.
            flags: self.pick(&[0, 0, 1, 1, 2, 2, 3, 4, 5, 7, 0xffff]),
            next: self.pick(&[0, 1, 2, 3, 5, 8, 63, 64, 0xffff]),
        }
    }
}

#[test]
fn random_rings_never_hurt_the_host() {
    let mut numbers = Numbers(0x5eed);
    let mut guest = NetGuest::plug("trandom");
    let mut stopped = 0;
    for round in 0..600 {
        guest.boot();
        let table = guest.driver.allocate(16 * 64, 16);
        for at in 0..64 {
            let descriptor = numbers.descriptor(table);
            guest
                .driver
                .write_memory(table + 16 * at, &descriptor.to_bytes());
        }
        for index in 0..QUEUE_SIZE {
            let (one, other) = (numbers.descriptor(table), numbers.descriptor(table));
            guest.tx.set_descriptor(index, one);
            guest.rx.set_descriptor(index, other);
        }
        for _ in 0..numbers.below(40) {
            guest.tx.offer(numbers.below(QUEUE_SIZE + 1));
            guest.rx.offer(numbers.below(QUEUE_SIZE + 1));
        }
        guest.driver.kick(TX);
        guest.driver.kick(RX);
        guest.inject(&pattern(64 + round, round));
        for _ in 0..numbers.below(50) {
            std::thread::yield_now();
        }
        if guest.driver.status() & status::NEEDS_RESET != 0 {
            stopped += 1;
        }
        guest.driver.write(register::STATUS, 0);
        while take(&mut guest.wire).is_some() {}
    }
    assert!(stopped > 0, "some of it was against the rules");
    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}
