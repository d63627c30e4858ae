//! What a worker that has nothing to do asks for before it sleeps.

use super::{NetBackend, Pause, RxOutcome, Side, TxOutcome, Way, Worker};
use crate::virtio::net::rate::Limiter;

/// This part of the receive queue is to have new buffers before a thread that ran out of them is woken.
const ENOUGH_BUFFERS: u16 = 4;
/// How soon to look for fewer, in milliseconds.
const BUFFERS_RETRY_MS: i32 = 1;

impl<B: NetBackend> Worker<B> {
    /// Asks for what would bring new work. `None`: there is some already.
    pub(super) fn prepare_to_sleep(
        &mut self,
        rx: Way<RxOutcome>,
        tx: Way<TxOutcome>,
    ) -> Option<Pause> {
        let mut pause = Pause::Long;
        let mut listen = false;
        match rx {
            Way::Closed | Way::Open(RxOutcome::More) => {}
            Way::Open(RxOutcome::Empty) => listen = true,
            // Not the fd: it stays readable, and only the guest's kick changes anything.
            Way::Open(RxOutcome::Starved(known)) => {
                // Nor, if buffers came just now, the very next ones: that were a kick and a wake-up
                // every few frames. The clock looks after a driver that has no more than that to give.
                let patient = std::mem::take(&mut self.fed);
                let more = self.rx.as_mut().map_or(Ok(false), |rx| {
                    let enough = if patient {
                        pause = Pause::Short(BUFFERS_RETRY_MS);
                        known.max(rx.work.queue.size() / ENOUGH_BUFFERS)
                    } else {
                        known
                    };
                    rx.work.queue.enable_kicks_beyond(enough)
                });
                if self.judge(Side::Rx, more) == Way::Open(true) {
                    return None;
                }
            }
            // Nor here: only time does.
            Way::Open(RxOutcome::Limited) => pause = nap(self.shared.rx_limit()),
        }
        for carrier in &mut self.carriers {
            let blocked = carrier.home == self.pair && tx == Way::Open(TxOutcome::Blocked);
            pause = pause.min(carrier.prepare_to_sleep(listen, blocked));
        }
        if tx == Way::Open(TxOutcome::Limited) {
            pause = pause.min(nap(self.shared.tx_limit()));
        }
        if tx == Way::Open(TxOutcome::Empty) {
            let tx = self.tx.as_mut();
            let more = tx.map_or(Ok(false), |tx| tx.work.queue.enable_kicks());
            if self.judge(Side::Tx, more) == Way::Open(true) {
                return None;
            }
        }
        self.set_alarm();
        Some(pause)
    }
}

/// How long to sleep when the limit is reached.
fn nap(limit: Option<&Limiter>) -> Pause {
    limit.map_or(Pause::None, |limit| Pause::Short(limit.wait_ms()))
}
