//! A limit on what a card carries, each way for itself (catalogue 56).
//!
//! The limit is the card's, so its queue pairs share it, and their threads share nothing else: each
//! rate is one atomic number, the time at which all that has passed would be paid for (the
//! "theoretical arrival time" of ITU-T I.371's generic cell rate algorithm). A thread looks at it
//! before a burst of frames and adds the burst's price after it: no lock, and no clock or atomic per frame.
//! Threads that look at the same time may pass one burst each too many; it is paid for by a longer wait.

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How much a card may carry, each way for itself and over all of its queue pairs.
///
/// Frames count with their Ethernet header, without FCS and virtio-net header. What the guest sends
/// too fast waits in its transmit queues. What the wire brings too fast waits in the back end's rings, and
/// when these are full is dropped where dropping is cheapest (for AF_XDP: by the kernel, which counts
/// it), as it is for a guest that posts no buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Frames a second, if they are limited.
    pub packets_per_second: Option<NonZeroU64>,
    /// Bytes a second, if they are limited.
    pub bytes_per_second: Option<NonZeroU64>,
    /// How much may pass at once after a silence: what the rates give in this time. From
    /// [`MIN_BURST`](Self::MIN_BURST) to [`MAX_BURST`](Self::MAX_BURST).
    pub burst: Duration,
}

impl RateLimit {
    /// A burst that suits most: long enough for a busy host to keep the rate.
    pub const DEFAULT_BURST: Duration = Duration::from_millis(20);
    /// The shortest burst. The io-threads sleep in milliseconds: with less the rate would not be kept.
    pub const MIN_BURST: Duration = Duration::from_millis(5);
    /// The longest burst.
    pub const MAX_BURST: Duration = Duration::from_secs(10);

    /// Whether there is anything to limit, and how.
    pub(super) fn check(&self) -> Result<(), RateError> {
        if self.packets_per_second.is_none() && self.bytes_per_second.is_none() {
            return Err(RateError::Nothing);
        }
        if !(Self::MIN_BURST..=Self::MAX_BURST).contains(&self.burst) {
            return Err(RateError::Burst(self.burst));
        }
        Ok(())
    }
}

/// Why a rate limit can't be as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// neither packets nor bytes
    #[error("a rate limit needs a number of packets or of bytes per second")]
    Nothing,
    /// a burst that is too short to keep the rate, or too long to be one
    #[error(
        "a rate limit's burst must be from {min:?} to {max:?} long, not {0:?}",
        min = RateLimit::MIN_BURST,
        max = RateLimit::MAX_BURST
    )]
    Burst(Duration),
}

/// Time is counted in 1/64 of a nanosecond, so that what one small frame costs at 100 Gbit/s is
/// still a number with less than one percent of rounding. Enough for nine years.
const TICKS_PER_NANOSECOND: u64 = 64;
const TICKS_PER_SECOND: u64 = 1_000_000_000 * TICKS_PER_NANOSECOND;
const TICKS_PER_MILLISECOND: u64 = TICKS_PER_SECOND / 1000;

/// Longest sleep before the clock is looked at again, in milliseconds.
const MAX_WAIT_MS: u64 = 1000;

/// One direction's limit, shared by the card's io-threads.
#[derive(Debug)]
pub(super) struct Limiter {
    start: Instant,
    burst: u64,
    frames: Option<Rate>,
    bytes: Option<Rate>,
}

/// What a thread may pass now, and what it did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    frames_left: u64,
    bytes_left: u64,
    frames: u64,
    bytes: u64,
}

impl Meter {
    /// For a card without limit: counts, and never ends.
    pub(super) const fn unlimited() -> Self {
        Self::new(u64::MAX, u64::MAX)
    }

    const fn new(frames_left: u64, bytes_left: u64) -> Self {
        Self {
            frames_left,
            bytes_left,
            frames: 0,
            bytes: 0,
        }
    }

    /// No further frame may pass.
    pub(super) fn is_spent(&self) -> bool {
        self.frames >= self.frames_left || self.bytes >= self.bytes_left
    }

    /// A frame of `len` bytes passed. One may be longer than the bytes that were left: the next ones
    /// wait the longer.
    pub(super) fn spend(&mut self, len: usize) {
        self.spend_segments(1, len);
    }

    /// So many frames of the wire passed, of `len` bytes together.
    pub(super) fn spend_segments(&mut self, count: usize, len: usize) {
        self.frames += count as u64;
        self.bytes += len as u64;
    }

    /// How many frames passed.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

impl Limiter {
    pub(super) fn new(limit: &RateLimit) -> Self {
        let burst = u64::try_from(limit.burst.as_nanos()).unwrap_or(u64::MAX);
        Self {
            start: Instant::now(),
            burst: burst.saturating_mul(TICKS_PER_NANOSECOND),
            frames: limit.packets_per_second.map(Rate::new),
            bytes: limit.bytes_per_second.map(Rate::new),
        }
    }

    fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        elapsed.saturating_mul(TICKS_PER_NANOSECOND)
    }

    fn rates(&self) -> impl Iterator<Item = &Rate> {
        [&self.frames, &self.bytes].into_iter().flatten()
    }

    /// What may pass now.
    pub(super) fn meter(&self) -> Meter {
        self.meter_at(self.now())
    }

    fn meter_at(&self, now: u64) -> Meter {
        let left = |rate: &Option<Rate>| {
            rate.as_ref()
                .map_or(u64::MAX, |rate| rate.left(now, self.burst))
        };
        Meter::new(left(&self.frames), left(&self.bytes))
    }

    /// Takes the price of what passed.
    pub(super) fn charge(&self, meter: &Meter) {
        self.charge_at(self.now(), meter);
    }

    fn charge_at(&self, now: u64, meter: &Meter) {
        for (rate, passed) in [(&self.frames, meter.frames), (&self.bytes, meter.bytes)] {
            if let Some(rate) = rate.as_ref().filter(|_| passed > 0) {
                rate.charge(now, passed);
            }
        }
    }

    /// How long to sleep until a good part of a burst may pass again, in milliseconds: waking up for
    /// each single frame would cost more than the frames do.
    pub(super) fn wait_ms(&self) -> i32 {
        self.wait_ms_at(self.now())
    }

    fn wait_ms_at(&self, now: u64) -> i32 {
        let part = self.burst / 4;
        let wait = |rate: &Rate| {
            let due = rate.due.load(Ordering::Relaxed);
            due.saturating_add(part)
                .saturating_sub(now.saturating_add(self.burst))
        };
        let longest = self.rates().map(wait).max().unwrap_or(0);
        let milliseconds = longest
            .div_ceil(TICKS_PER_MILLISECOND)
            .clamp(1, MAX_WAIT_MS);
        i32::try_from(milliseconds).unwrap_or(1)
    }
}

/// So many things a second.
#[derive(Debug)]
struct Rate {
    per_second: NonZeroU64,
    /// When all that passed is paid for, in ticks. Ahead of the clock by a burst at most when more
    /// may pass.
    due: AtomicU64,
}

impl Rate {
    fn new(per_second: NonZeroU64) -> Self {
        Self {
            per_second,
            due: AtomicU64::new(0),
        }
    }

    /// How many may pass. One at least if any may: a burst can be worth less than one thing.
    fn left(&self, now: u64, burst: u64) -> u64 {
        let due = self.due.load(Ordering::Relaxed).max(now);
        let credit = now.saturating_add(burst).saturating_sub(due);
        if credit == 0 {
            return 0;
        }
        let worth = u128::from(credit) * u128::from(self.per_second.get());
        let worth = worth / u128::from(TICKS_PER_SECOND);
        u64::try_from(worth).unwrap_or(u64::MAX).max(1)
    }

    fn charge(&self, now: u64, count: u64) {
        let price = u128::from(count) * u128::from(TICKS_PER_SECOND);
        // Rounded up: never faster than the limit.
        let price = price.div_ceil(u128::from(self.per_second.get()));
        let price = u64::try_from(price).unwrap_or(u64::MAX);
        // Silence is not saved up: what is due is never before now. Between the two steps another
        // thread may add its own; the sum is right in any order. An overflow takes centuries of debt.
        self.due.fetch_max(now, Ordering::Relaxed);
        self.due.fetch_add(price, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = TICKS_PER_SECOND;
    const MS: u64 = TICKS_PER_MILLISECOND;

    fn limiter(packets: u64, bytes: u64, burst_ms: u64) -> Limiter {
        let limit = RateLimit {
            packets_per_second: NonZeroU64::new(packets),
            bytes_per_second: NonZeroU64::new(bytes),
            burst: Duration::from_millis(burst_ms),
        };
        assert_eq!(limit.check(), Ok(()));
        Limiter::new(&limit)
    }

    /// Sends frames of `len` for `duration` in bursts of up to 64, sleeping as told plus `late`;
    /// returns how many went.
    fn run(limiter: &Limiter, len: usize, duration: u64, late: u64) -> u64 {
        let (mut now, mut frames) = (0, 0);
        while now < duration {
            let mut meter = limiter.meter_at(now);
            for _ in 0..64 {
                if !meter.is_spent() {
                    meter.spend(len);
                }
            }
            limiter.charge_at(now, &meter);
            frames += meter.frames();
            // What a burst of 64 costs at least.
            now += 10_000 * TICKS_PER_NANOSECOND;
            if meter.is_spent() {
                let wait = u64::try_from(limiter.wait_ms_at(now)).unwrap();
                now += wait * MS + late;
            }
        }
        frames
    }

    /// 56: within 5 % at slow and fast rates, of packets, of bytes and of both.
    #[test]
    fn rates_are_kept_whatever_they_are() {
        for (packets, bytes, len, expected) in [
            (10, 0, 60, 10),
            (1000, 0, 1514, 1000),
            (1_000_000, 0, 60, 1_000_000),
            (0, 125_000_000, 1514, 82_562),
            (0, 1_250_000_000, 9014, 138_673),
            (0, 100_000, 9014, 11),
            (5000, 125_000_000, 1514, 5000),
            (1_000_000, 1_000_000, 1000, 1000),
        ] {
            for late in [0, MS] {
                let limiter = limiter(packets, bytes, 20);
                let sent = run(&limiter, len, 10 * SECOND, late);
                // The first burst is on top: 20 ms of 10 s, and a part of a frame a second.
                let most = 10 * expected + expected / 50 + 10;
                assert!(sent <= most, "{sent} of {most}");
                assert!(sent * 100 >= 10 * expected * 97, "{sent} of {most}");
            }
        }
    }

    #[test]
    fn a_silence_saves_up_one_burst_and_no_more() {
        let limiter = limiter(1000, 0, 50);
        for now in [0, SECOND, 3600 * SECOND] {
            let mut meter = limiter.meter_at(now);
            assert_eq!(meter.frames_left, 50);
            for _ in 0..50 {
                assert!(!meter.is_spent());
                meter.spend(60);
            }
            assert!(meter.is_spent());
            limiter.charge_at(now, &meter);
            assert!(limiter.meter_at(now).is_spent());
            // A quarter of the burst.
            assert_eq!(limiter.wait_ms_at(now), 13);
            assert_eq!(limiter.meter_at(now + 13 * MS).frames_left, 13);
        }
    }

    /// Threads that look at the same time pay together.
    #[test]
    fn what_several_threads_pass_is_paid_for() {
        let limiter = limiter(1000, 0, 20);
        let mut meters = [limiter.meter_at(0); 4];
        for meter in &mut meters {
            (0..20).for_each(|_| meter.spend(60));
            limiter.charge_at(0, meter);
        }
        // 80 frames are 80 ms, 20 of which are the burst.
        assert!(limiter.meter_at(60 * MS).is_spent());
        assert!(!limiter.meter_at(61 * MS).is_spent());
    }

    #[test]
    fn one_frame_may_be_longer_than_a_burst() {
        let limiter = limiter(0, 1000, 5);
        let mut meter = limiter.meter_at(0);
        assert!(!meter.is_spent(), "5 bytes are left");
        meter.spend(9000);
        limiter.charge_at(0, &meter);
        assert!(limiter.meter_at(8 * SECOND).is_spent());
        assert!(!limiter.meter_at(9 * SECOND).is_spent());
        assert_eq!(limiter.wait_ms_at(0), 1000, "looks at the clock meanwhile");
    }

    #[test]
    fn impossible_limits_are_refused_in_words() {
        let limit = |packets, milliseconds| RateLimit {
            packets_per_second: NonZeroU64::new(packets),
            bytes_per_second: None,
            burst: Duration::from_millis(milliseconds),
        };
        assert_eq!(limit(0, 20).check(), Err(RateError::Nothing));
        for milliseconds in [0, 4, 10_001] {
            let text = limit(1, milliseconds).check().unwrap_err().to_string();
            assert!(text.contains("from 5ms to 10s"), "{text}");
        }
        assert_eq!(limit(u64::MAX, 5).check(), Ok(()));
    }
}
